"""The training loop, the same for the detector and for the mask head, for one process and for many."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detr_core.data.batching import steps_in_epoch, training_batches
from detr_core.data.coco import CocoDataset
from detr_core.distributed import Group
from detr_core.loss.matcher import NonFiniteError
from detr_core.model.checkpoint import save_checkpoint
from detr_core.reporter import Reporter
from detr_core.structures import Batch
from detr_core.train.config import TrainConfig
from detr_core.train.optimizer import build_optimizer, learning_rate_factor
from detr_core.train.state import Progress, load_state, save_state
from detr_core.train.tasks import Task

RECORDS = 200  # points on a training curve, whatever the length of the run


@dataclass(frozen=True)
class Validation:
    """What validation found. metrics: `val/...` scalars. score: higher is better; chooses the best checkpoint."""

    metrics: dict[str, float]
    score: float


@dataclass(frozen=True)
class Files:
    """Where a training writes. state: to resume from; last, best: checkpoints of the detector."""

    state: Path
    last: Path
    best: Path


def train(
    task: Task,
    dataset: CocoDataset,
    config: TrainConfig,
    validate: Callable[[], Validation],
    files: Files,
    mark: str,
    meta: dict[str, Any],
    group: Group,
    workers: int,
    reporter: Reporter,
) -> Progress:
    """Trains `task` on `dataset`, from the interrupted state in `files` where there is one of the same `mark`.

    validate: called in every process, every `validate_every` epochs and at the end; all must find the same. meta: goes into the
    checkpoints, of which the last and the best are written then.
    Raises NonFiniteError, naming the loss, the images, the step and the last good checkpoint, where a loss or gradient is not
    finite.
    """
    epoch_steps = steps_in_epoch(len(dataset), config.batch_size)
    total_steps = min(config.epochs * epoch_steps, config.steps or config.epochs * epoch_steps)
    optimizer = build_optimizer(task, config.optimizer)
    progress, note = load_state(files.state, mark, task, optimizer, group)
    saved = progress.step
    if note and group.first:
        reporter.message(note)
    if group.first:
        for record in progress.history:  # a record of the run that goes on is as whole as that of one never interrupted
            reporter.metrics(
                {name: value for name, value in record.items() if name not in ("step", "epoch")}, int(record["step"])
            )
    if progress.step == 0:
        torch.manual_seed(config.seed + group.rank)  # dropout; the weights were drawn before, alike in all processes
    # Buffers are fixed batch statistics, alike everywhere.
    parallel = DistributedDataParallel(task, broadcast_buffers=False) if group.size > 1 else task
    record_every = max(1, total_steps // RECORDS)
    clock = _Clock(progress.step, total_steps, config.batch_size, reporter if group.first else None)

    task.train()
    for epoch, micro_batches in _steps(dataset, config, epoch_steps, progress, total_steps, group, workers):
        factor = learning_rate_factor(progress.step, epoch_steps, total_steps, config.schedule)
        for parameters in optimizer.param_groups:
            parameters["lr"] = parameters["base_lr"] * factor
        try:
            parts = _step(parallel, task, micro_batches, optimizer, config.optimizer.clip_norm, group)
        except NonFiniteError as error:
            kept = _kept(files, saved, progress.best is not None)
            raise NonFiniteError(f"{error}, at step {progress.step + 1} (epoch {epoch}); {kept}") from None
        progress.step += 1
        progress.summed += 1
        for name, value in parts.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value
        clock.tell(progress.step, parts["loss"] * group.size)  # its share of the loss stands for the others'
        finished_epochs, into_epoch = divmod(progress.step, epoch_steps)
        if progress.step % record_every == 0 or progress.step == total_steps:
            values = _means_since_last_record(progress, group) | {"train/lr": config.optimizer.lr * factor}
            _record(progress, epoch_steps, values, group, reporter)
        at_end = progress.step == total_steps
        if at_end or (into_epoch == 0 and finished_epochs % config.validate_every == 0):
            task.eval()
            found = validate()
            task.train()
            _record(progress, epoch_steps, found.metrics, group, reporter)
            better = progress.best is None or found.score > progress.best
            if better:
                progress.best = found.score
            if group.first:
                about = {**meta, "epoch": finished_epochs, "step": progress.step}
                if better:
                    save_checkpoint(files.best, task.model, dataset.categories, about)
                save_checkpoint(files.last, task.model, dataset.categories, about)
            group.wait()
            clock.restart(progress.step)
        if at_end or progress.step % config.checkpoint_every == 0:
            save_state(files.state, mark, progress, task, optimizer, group)
            saved = progress.step
    return progress


def _kept(files: Files, saved: int, validated: bool) -> str:
    kept = [f"{files.last} and {files.best} are of the last validation and the best"] if validated else []
    if saved > 0:
        kept.append(f"{files.state} is of step {saved}")
    return "; ".join(kept) or "no checkpoint was written yet"


def _steps(
    dataset: CocoDataset, config: TrainConfig, epoch_steps: int, progress: Progress, total_steps: int, group: Group, workers: int
) -> Iterator[tuple[int, list[Batch]]]:
    # The micro-batches of one optimiser step at a time, from where `progress` stands; epochs are counted from 0.
    while progress.step < total_steps:
        epoch, into_epoch = divmod(progress.step, epoch_steps)
        loader = training_batches(
            dataset, config.batch_size, config.seed, epoch, into_epoch, group.rank, group.size, config.accumulation, workers
        )
        micro_batches: list[Batch] = []
        for batch in loader:
            micro_batches.append(batch)
            if len(micro_batches) == config.accumulation:
                yield epoch, micro_batches
                micro_batches = []
                if progress.step == total_steps:
                    return


def _step(
    parallel: nn.Module,
    task: Task,
    micro_batches: list[Batch],
    optimizer: torch.optim.Optimizer,
    clip_norm: float | None,
    group: Group,
) -> dict[str, float]:
    # Losses are sums divided by what all processes and micro-batches hold together. DDP averages gradients over processes,
    # so each multiplies by their number.
    counts = [len(target.labels) for batch in micro_batches for target in batch.targets]
    all_counts = [count for of_process in group.gather(counts) for count in of_process]
    normalizer = task.normalizer(all_counts)
    sums: dict[str, Tensor] = {}
    for index, batch in enumerate(micro_batches):
        last = index == len(micro_batches) - 1
        hold = nullcontext() if last or not isinstance(parallel, DistributedDataParallel) else parallel.no_sync()
        with hold:
            try:
                total, parts = parallel(batch.to(group.device), normalizer)
            except NonFiniteError as error:
                raise NonFiniteError(f"{error}, image ids {_image_ids([batch])}") from None
            (total * group.size).backward()
        for name, value in {"loss": total.detach(), **parts}.items():
            sums[name] = sums[name] + value if name in sums else value
    trainable = [parameter for parameter in task.parameters() if parameter.requires_grad]
    norm = nn.utils.clip_grad_norm_(trainable, clip_norm or float("inf"), foreach=True)
    values: list[float] = torch.stack([*sums.values(), norm]).tolist()
    if not all(map(math.isfinite, values)):
        named = ", ".join(f"{name} {value:g}" for name, value in zip([*sums, "gradient norm"], values, strict=True))
        found = [(all(map(math.isfinite, values[:-1])), f"({named}), image ids {_image_ids(micro_batches)}")]
        if not math.isfinite(values[-1]):  # as in every process, for they share the gradient: so whose loss it was is known
            found = group.gather(found[0])
        guilty = [text for finite, text in found if not finite] or [text for _, text in found]
        raise NonFiniteError(f"the loss is not finite {'; '.join(guilty)}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return dict(zip(sums, values, strict=False))


def _image_ids(batches: list[Batch]) -> list[int]:
    return [target.image_id for batch in batches for target in batch.targets]


def _means_since_last_record(progress: Progress, group: Group) -> dict[str, float]:
    # Each process holds its share of a loss that is already normalised over all of them: their sum is the loss.
    names = sorted(progress.sums)
    totals = group.total([progress.sums[name] for name in names])
    means = {f"train/{name}": total / progress.summed for name, total in zip(names, totals, strict=True)}
    progress.sums, progress.summed = {}, 0
    return means


def _record(progress: Progress, epoch_steps: int, values: dict[str, float], group: Group, reporter: Reporter) -> None:
    progress.history.append({"step": progress.step, "epoch": progress.step / epoch_steps, **values})
    if group.first:
        reporter.metrics(values, progress.step)


class _Clock:
    """Tells the reporter of progress a few times a second at most."""

    def __init__(self, step: int, total: int, images: int, reporter: Reporter | None) -> None:
        self.total, self.images, self.reporter = total, images, reporter
        self.told = 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        self.started, self.first_step = time.perf_counter(), step

    def tell(self, step: int, loss: float) -> None:
        now = time.perf_counter()
        if self.reporter is None or (now - self.told < 0.25 and step < self.total):
            return
        self.told = now
        rate = (step - self.first_step) * self.images / max(now - self.started, 1e-9)
        self.reporter.progress(step, self.total, rate, f"loss {loss:.3f}")
