"""Runs one rank process of a training; flows/launch.py or torchrun starts it: `python -m flows.worker JOB.json`.

JOB.json is an object with these fields:
- "stage": "detection" or "panoptic";
- "config": the fields of DetectionConfig or PanopticConfig;
- "detector": the detector's configuration for the stage "detection", else null;
- "init": a checkpoint of this project or a published one. The stage "detection" starts from it, or from scratch if it is null.
  For the stage "panoptic" it is the detector, which stays frozen;
- "mask_head": the checkpoint whose mask head the stage "panoptic" starts from, or null;
- "data": the folder with dataset.json; "work": the folder of the resumable state; "out": the folder of the results;
- "workers": the number of data loader processes; "profile": the profile's name, which the checkpoints hold.

Results in `out`: checkpoint.pt (the last), best.pt, metrics.json (the last value of each metric), history.jsonl (all values).
Rank 0 reports its progress on stdout, and each rank process reports its failure there: an event is one line, '@' and a JSON
object. Every other line is log. SIGINT or SIGTERM ends a training between two steps after its state is saved; the exit code is
then 130 or 143.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from filelock import FileLock, Timeout

from detr_core.config import ConfigError, as_dict, build
from detr_core.data.batching import evaluation_batches
from detr_core.data.coco import CocoDataset
from detr_core.data.dataset import DatasetError, read_dataset
from detr_core.data.transforms import evaluation_transform, training_transform
from detr_core.distributed import Group, process_group
from detr_core.errors import ExpectedError
from detr_core.evaluate.ground_truth import require_objects, require_scorable
from detr_core.evaluate.predictions import average_precision_of
from detr_core.loss.matcher import NonFiniteError
from detr_core.model.backbone import Backbone, load_imagenet_weights
from detr_core.model.checkpoint import as_detr, load_checkpoint
from detr_core.model.config import detector_config
from detr_core.model.detector import build_detector
from detr_core.model.detr import Detr
from detr_core.model.download import digest
from detr_core.reporter import Reporter, Silent
from detr_core.storage import as_storage_error
from detr_core.train.config import DetectionConfig, PanopticConfig, require_fit
from detr_core.train.initial import draw_positions, mask_head_from, start_from
from detr_core.train.interruption import Interrupted
from detr_core.train.loop import Validation, train
from detr_core.train.state import Files, Progress, fingerprint
from detr_core.train.tasks import PanopticTask, Task, detector_task
from detr_core.wording import counted
from flows import artifacts

J = TypeVar("J")


class Events:
    """A Reporter that prints each event as one line, which the process that started this one reads."""

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        _say(kind="progress", done=done, total=total, images_per_second=images_per_second, note=note)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        _say(kind="metrics", step=step, values=dict(values))

    def message(self, text: str) -> None:
        _say(kind="message", text=text)


@dataclass(frozen=True)
class Job:
    """The content of JOB.json. The docstring of this module describes its fields."""

    stage: Literal["detection", "panoptic"]
    config: dict[str, Any]
    detector: dict[str, Any] | None
    init: str | None
    data: str
    work: str
    out: str
    workers: int
    profile: str
    mask_head: str | None = None


def main(kind: type[J], run: Callable[[J, Group, Reporter], object]) -> int:
    """Runs the job in the file that the command line names, and reports a failure in an 'error' event. kind: the job's class.

    Returns the exit code: 0 on success, 128 + the number of the signal that interrupted the job, else 1.
    """
    job = kind(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    with process_group() as group:
        try:
            run(job, group, Events() if group.first else Silent())
        except Interrupted as interruption:
            _say_error(interruption, str(interruption))
            return 128 + interruption.signal
        except Exception as error:  # it is reported before this process leaves the group and the others fail for that reason
            told = (as_storage_error(error) if isinstance(error, OSError) else None) or error
            if not isinstance(told, ExpectedError | NonFiniteError):
                traceback.print_exc()
            if isinstance(told, ExpectedError | NonFiniteError | ValueError):
                _say_error(told, str(told))
            else:
                _say_error(told, f"{type(told).__name__}: {told}", expected=False)
            return 1
    return 0


def _say_error(error: BaseException, text: str, expected: bool = True) -> None:
    _say(kind="error", time=time.time(), expected=expected, text=" ".join(text.split()) or type(error).__name__)


def run(job: Job, group: Group, reporter: Reporter) -> Progress:
    """Runs the training job in this process, and returns its progress.

    Raises ConfigError, DatasetError or CheckpointError before the training begins, and NonFiniteError during the training.
    """
    with _only_writer(Path(job.work), group, reporter):
        return _train(job, group, reporter)


@contextmanager
def _only_writer(work: Path, group: Group, reporter: Reporter) -> Iterator[None]:
    """Holds the lock of the folder `work`; first waits for a process of an earlier, killed command that still writes there."""
    lock = FileLock(work / "writer.lock")
    if group.first:
        work.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            reporter.message("waiting for a process of an earlier training of this profile, which is still writing its state")
            lock.acquire()
    group.wait()
    try:
        yield
    finally:
        if lock.is_locked:
            # A training that was refused before it began leaves no folder. Otherwise the lock stays: another process may wait
            # for this very file, and one that came later would lock a new file beside it.
            if {path.name for path in work.iterdir()} <= {"writer.lock"}:
                Path(lock.lock_file).unlink(missing_ok=True)
                with suppress(OSError):
                    work.rmdir()
            lock.release()


def _train(job: Job, group: Group, reporter: Reporter) -> Progress:
    splits = read_dataset(Path(job.data))
    files = Files(Path(job.work) / "state.pt", Path(job.out) / "checkpoint.pt", Path(job.out) / "best.pt")
    for split in splits.values():
        require_objects(split)
    meta: dict[str, Any] = {"profile": job.profile, "stage": job.stage}
    ranges = splits["train"].value_ranges
    if ranges is not None:  # so that predictions scale images of more than 8 bits a value as the training did
        meta["value_ranges"] = {kind: list(limits) for kind, limits in ranges.items()}
    if job.stage == "detection":
        require_scorable(splits["val"])
        config = build(DetectionConfig, job.config, job.profile)
        architecture = detector_config(job.detector, job.profile)
        require_fit(architecture, config)
        dataset = CocoDataset(
            splits["train"], config.targets, masks=False, transform=training_transform(config.augmentation), seed=config.seed
        )
        torch.manual_seed(config.seed)
        model = build_detector(architecture, len(dataset.categories))
        if job.init is None:
            if config.positions_std is not None:
                draw_positions(model, config.positions_std)
            backbone = model.backbone[0]
            assert isinstance(backbone, Backbone)
            load_imagenet_weights(backbone, architecture.backbone)
        else:
            trained = load_checkpoint(Path(job.init), torch.device("cpu"), architecture.backbone.dilation)
            assert isinstance(model, Detr), "only a DETR is configured with init"
            as_detr(trained.model, "train_detection.init", Path(job.init))
            reporter.message(start_from(model, dataset.categories, trained))
        task: Task = detector_task(model, config.loss, _precision(config.precision))
        val = CocoDataset(
            splits["val"], config.targets, masks=False, transform=evaluation_transform(config.resize), seed=config.seed
        )
        validate = _box_validation(task, val, _fitting(config, group), group, job.workers)
        any_config: DetectionConfig | PanopticConfig = config
    else:
        assert job.init is not None, "a panoptic job names the detector's checkpoint"
        any_config = build(PanopticConfig, job.config, job.profile)
        dataset = CocoDataset(
            splits["train"], "panoptic", masks=True, transform=training_transform(any_config.augmentation), seed=any_config.seed
        )
        torch.manual_seed(any_config.seed)
        detector = artifacts.checkpoint(Path(job.init), job.profile, torch.device("cpu"))
        frozen = as_detr(detector.model, "the mask head", Path(job.init))
        if detector.categories != dataset.categories:
            categories = counted(len(dataset.categories), "category", "categories")
            raise ConfigError(
                f"train_detection.targets: expected a detector trained on the panoptic file's {categories}, found a detector of "
                f"{len(detector.categories)} other categories in {job.init}; train it with `train_detection.targets: panoptic`"
            )
        whole = with_mask_head(frozen, any_config)
        if job.mask_head is not None:
            file = Path(job.mask_head)
            trained = load_checkpoint(file, torch.device("cpu"), frozen.config.backbone.dilation)
            reporter.message(mask_head_from(whole, as_detr(trained.model, "train_panoptic.init", file)))
        task = PanopticTask(whole, any_config.loss, _precision(any_config.precision))
        val = CocoDataset(
            splits["val"], "panoptic", masks=True, transform=evaluation_transform(any_config.resize), seed=any_config.seed
        )
        validate = _mask_validation(task, val, _fitting(any_config, group), group, job.workers)
    task.to(group.device)
    annotations = [digest(file) for file in (splits["train"].instances, splits["train"].panoptic) if file is not None]
    given = [file and digest(Path(file)) for file in (job.init, job.mask_head)]
    scaling = [] if ranges is None else [meta["value_ranges"]]
    mark = fingerprint(as_dict(any_config), job.detector, annotations, *given, *scaling)
    progress = train(task, dataset, any_config, validate, files, mark, meta, group, job.workers, reporter)
    if group.first:
        _write_history(progress, Path(job.out))
    return progress


def with_mask_head(detector: Detr, config: PanopticConfig) -> Detr:
    """Returns the detector with a new mask head, whose weights for the attention maps are multiplied by `attention_gain`."""
    model = Detr(detector.config, detector.num_classes, mask_head=True, attention_maps=config.attention_maps)
    model.load_state_dict(detector.state_dict(), strict=False)
    with torch.no_grad():
        model.mask_head.lay1.weight[:, detector.config.width :] *= config.attention_gain
    return model


def _box_validation(task: Task, val: CocoDataset, batch_size: int, group: Group, workers: int) -> Callable[[], Validation]:
    def validate() -> Validation:
        figures = average_precision_of(task.model, val.categories, val, batch_size, group, workers, Silent())
        if figures["AP"] < 0:
            raise DatasetError(
                f"{val.split.name} split, {val.split.instances or val.split.panoptic}: expected objects to score against, found "
                "none; without them the average precision and the best checkpoint cannot be determined"
            )
        return Validation({f"val/{name}": value for name, value in figures.items()}, figures["AP"])

    return validate


def _mask_validation(
    task: PanopticTask, val: CocoDataset, batch_size: int, group: Group, workers: int
) -> Callable[[], Validation]:
    # Validation computes the training loss of the masks on the val split; the evaluation stage computes the panoptic quality.
    @torch.inference_mode()
    def validate() -> Validation:
        found: list[tuple[int, int, dict[str, float]]] = []  # per batch: first image id, number of targets, summed losses
        for batch in evaluation_batches(val, batch_size, group.rank, group.size, workers):
            counts = [len(target.labels) for target in batch.targets]
            normalizer = task.normalizer(counts)
            total, parts = task(batch.to(group.device), normalizer)
            sums = {name: float(value) * normalizer.boxes for name, value in {"loss": total, **parts}.items()}
            found.append((batch.targets[0].image_id, sum(counts), sums))
        # The sums are added in the order of the images, so that the result does not depend on the number of processes.
        everything = sorted((each for share in group.gather(found) for each in share), key=lambda each: each[0])
        boxes = max(sum(count for _, count, _ in everything), 1)
        means = {f"val/{name}": sum(sums[name] for _, _, sums in everything) / boxes for name in everything[0][2]}
        return Validation(means, -means["val/loss"])

    return validate


def _fitting(config: DetectionConfig | PanopticConfig, group: Group) -> int:
    # The training has shown that this many images fit into the memory of one process.
    return max(1, config.batch_size // (group.size * config.accumulation))


def _write_history(progress: Progress, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record) + "\n" for record in progress.history)
    (out / "history.jsonl").write_text(lines, encoding="utf-8")
    last: dict[str, float] = {}
    for record in progress.history:
        last |= record
    last.pop("step", None)
    (out / "metrics.json").write_text(json.dumps(dict(sorted(last.items())), indent=2) + "\n", encoding="utf-8")


def _precision(name: str) -> torch.dtype:
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _say(**event: object) -> None:
    # Each line is one write. print() would make two, and the line of another process could come between them.
    sys.stdout.write(f"@{json.dumps(event)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Job, run))
