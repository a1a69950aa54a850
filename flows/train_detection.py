"""This stage trains the detector. `python -m flows.train_detection [--profile demo]`"""

from __future__ import annotations

from flows import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

from prefect import flow

from detr_core.model.config import DetectorConfig
from detr_core.reporter import Reporter
from flows import artifacts, checkpoints, stage, tracking, train
from flows.paths import DEFAULT_PROFILE, Paths
from flows.progress import Tee, reporter
from flows.settings import Profile, load
from flows.show import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Trains the detector and returns the content of metrics.json.

    runs/<profile>/detection/ gets checkpoint.pt (the last), best.pt, metrics.json and history.jsonl. An interrupted training
    continues from its state in .state/. Raises ConfigError, DatasetError or CheckpointError before work begins, and WorkerError
    if a rank process fails.
    """
    artifacts.dataset(paths)
    init, masks = checkpoints.initial(settings.train_detection.init), settings.train_panoptic
    if masks is not None and isinstance(settings.detector, DetectorConfig):
        checkpoints.initial_mask_head(masks, settings.detector)  # an unsuitable mask head is refused before hours of training
    return train.run("detection", settings.train_detection, settings.detector, init, None, settings, paths, reporter)


@flow(name="train-detection", flow_run_name="train-detection {profile}")
def train_detection(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Trains the detector of a profile."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "detector", "train_detection", "resources")
    with tracking.stage_run("train_detection", paths, params, [paths.data, paths.dataset], sample_seconds=5) as record:
        with reporter("detector") as bar:
            train.tag_init(record, settings.train_detection.init)
            figures = run(settings, paths, Tee(bar, record))
        train.record_results(record, "detection", settings, paths)
    publish("train-detection", profile, figures, {"MLflow run": record.url()})
    return figures


def main() -> None:
    stage.main("train_detection", train_detection)


if __name__ == "__main__":
    main()
