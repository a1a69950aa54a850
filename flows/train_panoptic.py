"""This stage trains the mask head on the frozen detector. `python -m flows.train_panoptic [--profile demo]`"""

from __future__ import annotations

from flows import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

from prefect import flow

from detr_core.config import ConfigError
from detr_core.data.dataset import DatasetError
from detr_core.model.config import DetectorConfig
from detr_core.reporter import Reporter
from flows import artifacts, checkpoints, stage, tracking, train
from flows.locks import building
from flows.paths import DEFAULT_PROFILE, Paths, relative
from flows.progress import Tee, reporter
from flows.settings import Profile, load
from flows.show import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Trains the mask head and returns the content of metrics.json.

    runs/<profile>/panoptic/ gets checkpoint.pt (the last), best.pt, metrics.json and history.jsonl. The checkpoints hold the
    whole model, with the unchanged weights of the detector. If the profile's section `train_panoptic` is null, no mask head is
    trained: the folder gets only a text file that says so, and no metrics are returned. An interrupted training continues from
    its state in .state/.
    Raises ConfigError, DatasetError, CheckpointError or StageError before work begins, and WorkerError if a rank process fails.
    """
    splits = artifacts.dataset(paths)
    if settings.train_panoptic is None:
        with building(paths.panoptic, reporter.message) as folder:
            reason = "no mask head is trained, because the profile's section train_panoptic is null"
            (folder / "left-out.txt").write_text(f"{reason}\n", encoding="utf-8")  # DVC warns of empty folders
            reporter.message(reason)
        return {}
    if not isinstance(settings.detector, DetectorConfig):
        expected = "'detr', which can have a mask head"
        raise ConfigError(f"{relative(paths.params)}: detector.kind: expected {expected}, found {settings.detector.kind!r}")
    for name, split in splits.items():
        if split.panoptic is None:
            where = relative(paths.dataset / "dataset.json")
            raise DatasetError(f"{where}: {name}.panoptic: expected panoptic annotations for the mask head, found null")
    detector, mask_head = artifacts.detector(paths), checkpoints.initial_mask_head(settings.train_panoptic, settings.detector)
    return train.run("panoptic", settings.train_panoptic, None, detector, mask_head, settings, paths, reporter)


@flow(name="train-panoptic", flow_run_name="train-panoptic {profile}")
def train_panoptic(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Trains the mask head of a profile on its frozen detector."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "train_panoptic", "resources")
    inputs = [paths.data, paths.dataset, paths.detection]
    with tracking.stage_run("train_panoptic", paths, params, inputs, sample_seconds=5) as record:
        with reporter("mask head") as bar:
            if settings.train_panoptic is not None:
                train.tag_init(record, settings.train_panoptic.init)
            figures = run(settings, paths, Tee(bar, record))
        if settings.train_panoptic is not None:
            train.record_results(record, "panoptic", settings, paths)
    publish("train-panoptic", profile, figures, {"MLflow run": record.url()})
    return figures


def main() -> None:
    stage.main("train_panoptic", train_panoptic)


if __name__ == "__main__":
    main()
