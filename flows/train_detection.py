"""This stage trains the detector. `python -m flows.train_detection [--profile demo]`"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

from prefect import flow

from detr_core.reporter import Reporter
from flows.profile import checkpoints, stage_results
from flows.profile.paths import DEFAULT_PROFILE, Paths
from flows.profile.settings import Profile, can_have_mask_head, load
from flows.runtime import joining, stage_runner, training_run
from flows.runtime.progress import Tee, reporter
from flows.tracking import recorder
from flows.tracking.prefect_summary import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Trains the detector and returns the content of metrics.json.

    runs/<profile>/detection/ gets checkpoint.pt (the last), best.pt, metrics.json and history.jsonl. An interrupted training
    continues from its state in .state/. Raises ConfigError, DatasetError or CheckpointError before work begins, and
    RankProcessError if a rank process fails.
    """
    splits = stage_results.dataset(paths)
    init, masks = checkpoints.initial(settings.train_detection.init), settings.train_panoptic
    stage_results.require_masks(splits, settings, paths)  # also for the mask head: before the long training of its detector
    if masks is not None and can_have_mask_head(settings):
        checkpoints.initial_mask_head(masks, settings.detector)
    return training_run.run("detection", init, None, settings, paths, reporter)


@flow(name="train-detection", flow_run_name="train-detection {profile}")
def train_detection(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Trains the detector of a profile."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "detector", "train_detection", "resources")
    with recorder.stage_run("train_detection", paths, params, [paths.data, paths.dataset], sample_seconds=5) as record:
        with reporter("detector") as bar:
            training_run.tag_init(record, settings.train_detection.init)
            metrics = run(settings, paths, Tee(bar, record))
        training_run.record_results(record, "detection", settings, paths)
    publish("train-detection", profile, metrics, {"MLflow run": record.url()})
    return metrics


def main() -> None:
    if not joining.joined("train_detection", "detr_core.jobs.train_detection"):
        stage_runner.main("train_detection", train_detection)


if __name__ == "__main__":
    main()
