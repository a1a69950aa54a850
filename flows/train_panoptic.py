"""Stage: the mask head, trained on the frozen detector. `python -m flows.train_panoptic [--profile demo]`"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow

from detr_core.config import as_dict
from detr_core.data.dataset import DatasetError
from detr_core.reporter import Reporter
from flows import artifacts, launch, stage, tracking
from flows.paths import DEFAULT_PROFILE, Paths, relative, whole_or_nothing
from flows.progress import Tee, reporter
from flows.settings import Profile, load
from flows.show import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Trains the mask head into runs/<profile>/panoptic/: checkpoint.pt (the last), best.pt, metrics.json, history.jsonl.

    Where the profile's section is null there is no mask head: the folder stays empty, and nothing is returned.

    The checkpoints hold the whole model, the detector's weights as they were. An interrupted training is taken up again from
    .state/. Returns metrics.json. Raises DatasetError or StageError before work begins, TrainingError where a process of
    the training fails.
    """
    splits = artifacts.dataset(paths)
    if settings.train_panoptic is None:
        with whole_or_nothing(paths.panoptic):
            reporter.message("no mask head: train_panoptic is null")
        return {}
    for name, split in splits.items():
        if split.panoptic is None:
            where = relative(paths.dataset / "dataset.json")
            raise DatasetError(f"{where}: {name}.panoptic: expected panoptic annotations to train masks on, found null")
    detector = artifacts.detector(paths)
    work = paths.unfinished("train_panoptic")
    job = {
        "stage": "panoptic",
        "config": as_dict(settings.train_panoptic),
        "detector": None,
        "data": str(paths.dataset),
        "init": str(detector),
        "work": str(work),
        "out": str(work / "out"),
        "workers": settings.resources.workers,
        "profile": paths.profile,
    }
    launch.train(job, launch.training_processes(settings.resources), reporter)
    with whole_or_nothing(paths.panoptic) as folder:
        for file in (work / "out").iterdir():
            shutil.copy2(file, folder)
    shutil.rmtree(work, ignore_errors=True)
    figures: dict[str, float] = json.loads((paths.panoptic / "metrics.json").read_text(encoding="utf-8"))
    return figures


@flow(name="train-panoptic")
def train_panoptic(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Trains the mask head of a profile on its frozen detector."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "train_panoptic", "resources")
    inputs = [paths.data, paths.dataset, paths.detection]
    with tracking.stage_run("train_panoptic", paths, params, inputs, sample_seconds=5) as record:
        with reporter("mask head") as bar:
            figures = run(settings, paths, Tee(bar, record))
        if settings.train_panoptic is not None:
            from detr_core.figures.curves import training_curves  # matplotlib, not before the training needs the processor

            with TemporaryDirectory() as folder:
                record.figures(training_curves(paths.panoptic / "history.jsonl", Path(folder), "panoptic"))
            record.artifact(paths.panoptic / "history.jsonl")
            record.model(paths.panoptic / "checkpoint.pt", as_dict(settings.evaluate))
    publish("train-panoptic", profile, figures, {"MLflow run": record.url()})
    return figures


def main() -> None:
    stage.main(train_panoptic)


if __name__ == "__main__":
    main()
