"""This stage trains the mask head, on a frozen detector or jointly with it. `python -m flows.train_panoptic [--profile demo]`"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

from prefect import flow

from detr_core.config import ConfigError
from detr_core.model.spec import kinds_with
from detr_core.reporter import Reporter
from flows.profile import checkpoints, stage_results
from flows.profile.paths import DEFAULT_PROFILE, Paths, relative
from flows.profile.settings import Profile, can_have_mask_head, load
from flows.runtime import joining, stage_runner, training_run
from flows.runtime.locks import building
from flows.runtime.progress import Tee, reporter
from flows.tracking import recorder
from flows.tracking.prefect_summary import publish


def run(settings: Profile, paths: Paths, reporter: Reporter) -> dict[str, float]:
    """Trains the mask head and returns the content of metrics.json.

    runs/<profile>/panoptic/ gets checkpoint.pt (the last), best.pt, metrics.json and history.jsonl. The checkpoints hold the
    whole model; the weights of a frozen detector are unchanged. If the profile's section `train_panoptic` is null, no mask head
    is trained: the folder gets only a text file that says so, and no metrics are returned. An interrupted training continues
    from its state in .state/.
    Raises ConfigError, DatasetError, CheckpointError or StageError before work begins, and
    RankProcessError if a rank process fails.
    """
    splits = stage_results.dataset(paths)
    if settings.train_panoptic is None:
        with building(paths.panoptic, reporter.message) as folder:
            reason = "no mask head is trained, because the profile's section train_panoptic is null"
            (folder / "left-out.txt").write_text(f"{reason}\n", encoding="utf-8")  # DVC warns of empty folders
            reporter.message(reason)
        return {}
    if not can_have_mask_head(settings):
        expected = f"{kinds_with('mask_head')}, which can have a mask head"
        raise ConfigError(f"{relative(paths.params)}: detector.kind: expected {expected}, found {settings.detector.kind!r}")
    stage_results.require_masks(splits, settings, paths)
    detector, mask_head = stage_results.detector(paths), checkpoints.initial_mask_head(settings.train_panoptic, settings.detector)
    return training_run.run("panoptic", detector, mask_head, settings, paths, reporter)


@flow(name="train-panoptic", flow_run_name="train-panoptic {profile}")
def train_panoptic(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Trains the mask head of a profile, on its frozen detector or together with it."""
    settings, paths = load(profile), Paths(profile)
    params = settings.flat("data", "train_panoptic", "resources")
    inputs = [paths.data, paths.dataset, paths.detection]
    with recorder.stage_run("train_panoptic", paths, params, inputs, sample_seconds=5) as record:
        with reporter("mask head") as bar:
            if settings.train_panoptic is not None:
                training_run.tag_init(record, settings.train_panoptic.init)
            metrics = run(settings, paths, Tee(bar, record))
        if settings.train_panoptic is not None:
            training_run.record_results(record, "panoptic", settings, paths)
    publish("train-panoptic", profile, metrics, {"MLflow run": record.url()})
    return metrics


def main() -> None:
    if not joining.joined("train_panoptic", "detr_core.jobs.train_panoptic"):
        stage_runner.main("train_panoptic", train_panoptic)


if __name__ == "__main__":
    main()
