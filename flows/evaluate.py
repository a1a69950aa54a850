"""Stage: what the trained model says of the val split, and how good that is. `python -m flows.evaluate [--profile demo]`"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow

from detr_core.config import as_dict
from detr_core.reporter import Reporter
from flows import artifacts, stage, tracking
from flows.paths import DEFAULT_PROFILE, Paths, whole_or_nothing
from flows.progress import Tee, reporter
from flows.settings import Profile, load
from flows.show import publish

PICTURES = 6  # of each kind in the record; the report has more


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Writes predictions and their figures (AP of boxes and masks, PQ, kinds of errors) into runs/<profile>/evaluation/.

    Returns its metrics.json. Raises DatasetError, StageError or CheckpointError before work begins.
    """
    split = artifacts.dataset(paths)["val"]
    path = artifacts.whole_model(paths)

    from detr_core.data.coco import CocoDataset  # torch takes seconds to import
    from detr_core.data.transforms import evaluation_transform
    from detr_core.evaluate.predictions import evaluate, predict

    config, device = settings.evaluate, artifacts.device()
    trained = artifacts.checkpoint(path, paths.profile, device)
    dataset = CocoDataset(split, artifacts.targets(split), masks=False, transform=evaluation_transform(config.resize), seed=0)
    with whole_or_nothing(paths.evaluation) as folder:
        predict(trained.model, trained.categories, dataset, config, folder, device, settings.resources.workers, reporter)
        return evaluate(folder, split)


@flow(name="evaluate")
def evaluate(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Evaluates the trained model of a profile on its val split."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "detector", "evaluate")
    with tracking.stage_run("evaluate", paths, params, [paths.data, paths.detection, paths.panoptic]) as record:
        with reporter("evaluation") as bar:
            figures = run(settings, paths, Tee(bar, record))
        record.metrics(figures, step=0)
        for name in ("per_class.json", "errors.json"):
            record.artifact(paths.evaluation / name)
        with TemporaryDirectory() as folder:
            record.figures(_pictures(paths, Path(folder)))
        record.model(artifacts.whole_model(paths), as_dict(settings.evaluate))
    publish("evaluate", profile, figures, {"MLflow run": record.url()})
    return figures


def _pictures(paths: Paths, folder: Path) -> list[Path]:
    from detr_core.figures.detections import detection_pictures
    from detr_core.figures.panoptic import panoptic_pictures

    split = artifacts.dataset(paths)["val"]
    pictures = detection_pictures(split, paths.evaluation, folder, PICTURES)
    if split.panoptic is not None and (paths.evaluation / "panoptic.json").is_file():
        pictures += panoptic_pictures(split, paths.evaluation, folder, PICTURES)
    return pictures


def main() -> None:
    stage.main(evaluate)


if __name__ == "__main__":
    main()
