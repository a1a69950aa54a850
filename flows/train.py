"""What both trainings do around the processes that train: the job, the results in their place, the record of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from detr_core.config import as_dict
from detr_core.model.config import AnyDetectorConfig
from detr_core.reporter import Reporter
from detr_core.train.config import DetectionConfig, InitConfig, PanopticConfig
from flows import checkpoints, launch, tracking
from flows.paths import Paths, whole_or_nothing
from flows.settings import Profile

Stage = Literal["detection", "panoptic"]


def run(
    stage: Stage,
    config: DetectionConfig | PanopticConfig,
    detector: AnyDetectorConfig | None,
    init: Path | None,
    mask_head: Path | None,
    settings: Profile,
    paths: Paths,
    reporter: Reporter,
) -> dict[str, float]:
    """Trains into runs/<profile>/<stage>/; an interrupted training is taken up again from .state/. Returns metrics.json.

    config, detector, init, mask_head: as flows/worker.py describes them. Raises WorkerError where a process of the training
    fails.
    """
    work, resources = paths.unfinished(f"train_{stage}"), settings.resources
    job = {
        "stage": stage,
        "config": as_dict(config),
        "detector": detector and as_dict(detector),
        "data": str(paths.dataset),
        "init": init and str(init),
        "mask_head": mask_head and str(mask_head),
        "work": str(work),
        "out": str(work / "out"),
        "workers": resources.workers,
        "profile": paths.profile,
    }
    at_once = resources.side_by_side if paths.variant else 1
    launch.run(job, launch.process_count(resources), reporter, gpus=resources.gpus, variant=paths.variant, side_by_side=at_once)
    with whole_or_nothing(paths.runs / stage) as folder:
        shutil.copytree(work / "out", folder, dirs_exist_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    figures: dict[str, float] = json.loads((paths.runs / stage / "metrics.json").read_text(encoding="utf-8"))
    return figures


def tag_init(record: tracking.Record, init: InitConfig | None) -> None:
    """The checksum of what a training starts from into the record: DVC doesn't follow a file outside of the project."""
    if (file := checkpoints.initial(init)) is not None:
        from detr_core.model.download import digest

        record.tag("init.sha256", digest(file))


def record_results(record: tracking.Record, stage: Stage, settings: Profile, paths: Paths) -> None:
    """The curves of a training, its history and its model into the record."""
    from detr_core.figures.curves import training_curves  # matplotlib, not before the training needs the processor

    results = paths.runs / stage
    with TemporaryDirectory() as folder:
        record.figures(training_curves(results / "history.jsonl", Path(folder), stage))
    record.artifact(results / "history.jsonl")
    record.model(results / "checkpoint.pt", as_dict(settings.evaluate), masks=stage == "panoptic")
