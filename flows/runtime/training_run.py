"""Runs a training for the stages train_detection and train_panoptic: its job, its result folder, and its run in MLflow."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from detr_core import directories
from detr_core.config import as_dict
from detr_core.directories import atomic_directory
from detr_core.reporter import Reporter
from detr_core.train.config import InitConfig
from flows.profile import checkpoints
from flows.profile.paths import Paths
from flows.profile.settings import Profile, learns_masks
from flows.runtime import launch
from flows.runtime.locks import exclusive
from flows.runtime.machines import machines
from flows.tracking import recorder

Stage = Literal["detection", "panoptic"]


def run(
    stage: Stage, init: Path | None, mask_head: Path | None, settings: Profile, paths: Paths, reporter: Reporter
) -> dict[str, float]:
    """Trains, writes the results to runs/<profile>/<stage>/, and returns the content of metrics.json.

    An interrupted training continues from its state in .state/. `detr_core.jobs.training.TrainingJob` describes init and
    mask_head. Raises RankProcessError if a rank process fails.
    """
    result, work = paths.result(stage), paths.unfinished(f"train_{stage}")
    with exclusive(result, tell=reporter.message):
        directories.require_replaceable(result)  # this is checked here, so that it does not fail after hours of training
        _launch(stage, init, mask_head, settings, paths, reporter)
        with atomic_directory(result) as folder:
            shutil.copytree(work / "out", folder, dirs_exist_ok=True)
        _forget(work, result)
        metrics: dict[str, float] = json.loads((result / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def _launch(stage: Stage, init: Path | None, mask_head: Path | None, settings: Profile, paths: Paths, reporter: Reporter) -> None:
    """Trains in rank processes, which write to the stage's folder below .state/unfinished/."""
    work, resources = paths.unfinished(f"train_{stage}"), settings.resources
    config = settings.train_detection if stage == "detection" else settings.train_panoptic
    assert config is not None
    joint = stage == "panoptic" and settings.trains_jointly
    processes, at_once = launch.process_count(resources), resources.side_by_side if paths.variant else 1
    job = {
        "stage": stage,
        "config": as_dict(config),
        "detector": as_dict(settings.detector) if stage == "detection" else None,
        "data": str(paths.dataset),
        "init": init and str(init),
        "mask_head": mask_head and str(mask_head),
        "loss": as_dict(settings.train_detection.loss) if joint else None,
        "evaluate": as_dict(settings.evaluate),
        "work": str(work),
        "out": str(work / "out"),
        "workers": launch.worker_count(resources, processes * at_once),
        "profile": paths.profile,
    }
    hardware = launch.Hardware(resources.gpus, at_once, machines(resources))
    launch.run(job, processes, reporter, variant=paths.variant, hardware=hardware)


def _forget(work: Path, result: Path) -> None:
    """Removes the state of a finished training whose results are in `result`: its files, and its folders if they are empty."""
    for file in (work / "state.pt", work / "writer.lock", *(work / "out" / path.name for path in result.iterdir())):
        file.unlink(missing_ok=True)
    for folder in (work / "out", work):
        with suppress(OSError):  # a folder is kept if a user has put a file there
            folder.rmdir()


def tag_init(record: recorder.RunRecorder, init: InitConfig | None) -> None:
    """Records the checksum of the checkpoint that a training starts from, because DVC may not track that file."""
    if (file := checkpoints.initial(init)) is not None:
        from detr_core.checksums import digest

        record.tag("init.sha256", digest(file))


def record_results(record: recorder.RunRecorder, stage: Stage, settings: Profile, paths: Paths) -> None:
    """Records the curves of a training, its history and its model."""
    from detr_core.plots.curves import training_curves  # matplotlib is imported only after the training

    results = paths.result(stage)
    with TemporaryDirectory() as folder:
        record.plots(training_curves(results / "history.jsonl", Path(folder), stage))
    record.artifact(results / "history.jsonl")
    masks = settings.masks if stage == "panoptic" or learns_masks(settings) else None
    record.model(results / "checkpoint.pt", as_dict(settings.evaluate), masks)
