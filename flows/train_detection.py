"""Stage: the detector, trained. `python -m flows.train_detection [--profile demo]`"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow

from detr_core.config import as_dict
from detr_core.reporter import Reporter
from flows import artifacts, checkpoints, launch, stage, tracking
from flows.paths import DEFAULT_PROFILE, Paths, whole_or_nothing
from flows.progress import Tee, reporter
from flows.settings import Profile, load
from flows.show import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Trains the detector into runs/<profile>/detection/: checkpoint.pt (the last), best.pt, metrics.json, history.jsonl.

    An interrupted training is taken up again from .state/. Returns metrics.json.
    Raises DatasetError or CheckpointError before work begins, TrainingError where a process of the training fails.
    """
    artifacts.dataset(paths)
    init = _initial_checkpoint(settings)
    work = paths.unfinished("train_detection")
    job = {
        "stage": "detection",
        "config": as_dict(settings.train_detection),
        "detector": as_dict(settings.detector),
        "data": str(paths.dataset),
        "init": init and str(init),
        "work": str(work),
        "out": str(work / "out"),
        "workers": settings.resources.workers,
        "profile": paths.profile,
    }
    launch.train(job, launch.training_processes(settings.resources), reporter)
    with whole_or_nothing(paths.detection) as folder:
        for file in (work / "out").iterdir():
            shutil.copy2(file, folder)
    shutil.rmtree(work, ignore_errors=True)
    figures: dict[str, float] = json.loads((paths.detection / "metrics.json").read_text(encoding="utf-8"))
    return figures


@flow(name="train-detection")
def train_detection(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Trains the detector of a profile."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "detector", "train_detection", "resources")
    with tracking.stage_run("train_detection", paths, params, [paths.data, paths.dataset], sample_seconds=5) as record:
        with reporter("detector") as bar:
            if (init := _initial_checkpoint(settings)) is not None:
                from detr_core.model.download import digest

                record.tag("init.sha256", digest(init))  # DVC doesn't follow a file outside of the project
            figures = run(settings, paths, Tee(bar, record))
        from detr_core.figures.curves import training_curves  # matplotlib, not before the training needs the processor

        with TemporaryDirectory() as folder:
            record.figures(training_curves(paths.detection / "history.jsonl", Path(folder), "detection"))
        record.artifact(paths.detection / "history.jsonl")
        record.model(paths.detection / "checkpoint.pt", as_dict(settings.evaluate))
    publish("train-detection", profile, figures, {"MLflow run": record.url()})
    return figures


def _initial_checkpoint(settings: Profile) -> Path | None:
    init = settings.train_detection.init
    return None if init is None else checkpoints.local_file(init.checkpoint, init.sha256)


def main() -> None:
    stage.main(train_detection)


if __name__ == "__main__":
    main()
