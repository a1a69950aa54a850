"""Trains the detector or the mask head, with one or several processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from detr_core.data.batching import BatchPlan, all_training_batches, steps_in_epoch
from detr_core.data.coco_dataset import CocoDataset
from detr_core.distributed import ProcessContext
from detr_core.loss.matcher import NonFiniteError
from detr_core.model.checkpoint import save_checkpoint
from detr_core.reporter import Reporter, Silent
from detr_core.structures import Batch, Validation
from detr_core.train.average import WeightAverage
from detr_core.train.config import TrainConfig
from detr_core.train.interruption import Interrupted, StopRequest, stop_request
from detr_core.train.modules import TrainingModule
from detr_core.train.optimizer import build_optimizer, build_schedule
from detr_core.train.prefetching import copied
from detr_core.train.state import Progress, TrainingFiles, load_state, require_room, save_state
from detr_core.train.step import LaunchedStep, take_step

RECORDS = 200  # number of points on a training curve of any length


@dataclass(frozen=True)
class TrainingSetup:
    """What a training needs before its first step.

    validate: measures the module. It is called in every process, every `validate_every` epochs and after each of the last
    `validate_last`, and must return the same result in all processes. meta: plain values that the checkpoints contain in
    addition to those of `train`. note: returns a sentence for the log, or None; it is called after steps whose losses are
    recorded.
    """

    module: TrainingModule
    dataset: CocoDataset
    config: TrainConfig
    validate: Callable[[], Validation]
    meta: dict[str, Any] = field(default_factory=dict)
    note: Callable[[], str | None] = lambda: None


def train(
    setup: TrainingSetup,
    files: TrainingFiles,
    fingerprint: str,
    meta: dict[str, Any],
    process: ProcessContext,
    workers: int,
    reporter: Reporter,
) -> Progress:
    """Trains the module of `setup` on its dataset, from the state in `files` if that state has the same `fingerprint`.

    The last and the best checkpoint are written after each validation. fingerprint: the result of
    `detr_core.train.state.fingerprint`. meta: plain values about the job that the checkpoints contain, in addition to
    `setup.meta`. process: this process, one of several that train together or the only one. workers: the number of dataloader
    workers.
    Raises NonFiniteError, which names the loss, the images, the step and the last good checkpoint, if a loss or a gradient is not
    finite; StorageError if the disk has no room, if possible before the first step; and Interrupted, after saving the state, if
    SIGINT or SIGTERM asks a process to stop.
    """
    module, config = setup.module, setup.config
    optimizer = build_optimizer(module, config.optimizer)
    if config.ema_decay is not None:
        module.average = WeightAverage(module.model, config.ema_decay)
    epoch_steps = steps_in_epoch(len(setup.dataset), config.batch_size)
    schedule = build_schedule(optimizer, config.schedule, epoch_steps, _total_steps(config, epoch_steps))
    progress, note = load_state(files.state, fingerprint, module, optimizer, schedule, process, config.seed)
    reporter = reporter if process.first else Silent()
    work = _Training(setup, files, fingerprint, meta, process, reporter, optimizer, schedule, progress)
    if note:
        reporter.message(note)
    if process.first:
        require_room(files, module, optimizer)
    for record in progress.history:  # reports earlier records again, so that a resumed run has a complete history
        values = {name: value for name, value in record.items() if name not in ("step", "epoch")}
        reporter.metrics(values, int(record["step"]))
    if progress.step == 0:
        torch.manual_seed(config.seed + process.rank)  # for dropout; all processes already have the same initial weights
    with stop_request() as stop:
        try:
            work.carry_out(workers, stop)
        except Interrupted as interruption:
            work.save_once()
            raise Interrupted(work.interruption_note(), interruption.signal) from None
    return progress


@dataclass
class _Training:
    """The state of one call of `train`.

    saved: the step of the state that is on disk. unread: the last step, with its number and its epoch, until its losses are read.
    """

    setup: TrainingSetup
    files: TrainingFiles
    fingerprint: str
    meta: dict[str, str]
    process: ProcessContext
    reporter: Reporter
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    progress: Progress

    def __post_init__(self) -> None:
        self.module, self.dataset, self.config = self.setup.module, self.setup.dataset, self.setup.config
        self.saved = self.progress.step
        self.unread: tuple[LaunchedStep, int, int] | None = None
        self.epoch_steps = steps_in_epoch(len(self.dataset), self.config.batch_size)
        self.total_steps = _total_steps(self.config, self.epoch_steps)
        self.record_every = max(1, self.total_steps // RECORDS)
        self.clock = _Clock(self.progress.step, self.total_steps, self.config.batch_size, self.reporter)

    def carry_out(self, workers: int, stop: StopRequest) -> None:
        """Executes all remaining steps. Raises Interrupted, in all processes, between two steps or during a validation."""
        progress, process = self.progress, self.process
        parallel: nn.Module = self.module
        if process.size > 1:
            # Buffers are fixed batch statistics, which are equal in all processes and need no synchronisation.
            parallel = DistributedDataParallel(self.module, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.module.train()
        clip_norm = self.config.optimizer.clip_norm
        if self.validation_is_due():  # the earlier run was interrupted during the validation
            self.validate(stop)
        for epoch, micro_batches in _steps(
            self.dataset, self.config, self.epoch_steps, progress, self.total_steps, process, workers
        ):
            rate = self.optimizer.param_groups[0]["lr"]  # the rate of this step, for all parameters except the backbone's
            try:
                step = take_step(parallel, self.module, micro_batches, self.optimizer, clip_norm, process, stop)
            except NonFiniteError as error:
                self.read_losses()  # an earlier step may have been the first one without a finite loss
                raise self.located(error, progress.step + 1, epoch) from None
            self.schedule.step()
            if self.module.average is not None:
                self.module.average.update(progress.step + 1, step.skipped)
            self.read_losses()
            progress.step += 1
            self.unread = (step, progress.step, epoch)
            if progress.step % self.record_every == 0 or progress.step == self.total_steps:
                self.read_losses()
                self.record(_means_since_last_record(progress, process) | {"train/lr": rate})
            if self.validation_is_due():
                self.validate(stop)
            if progress.step == self.total_steps or progress.step % self.config.checkpoint_every == 0:
                self.save()

    def read_losses(self) -> None:
        """Reads the losses of the last step, if that has not been done, and reports the progress.

        The losses of a step are read while the GPU computes the next one. Raises NonFiniteError if a loss was not finite.
        """
        if self.unread is None:
            return
        (launched, step, epoch), self.unread = self.unread, None
        try:
            parts = launched.read()
        except NonFiniteError as error:
            raise self.located(error, step, epoch) from None
        self.progress.add(parts)
        images = min(self.config.batch_size, len(self.dataset))
        self.clock.report(step, parts["loss"] * images / len(launched.images))  # estimated from this process's share

    def located(self, error: NonFiniteError, step: int, epoch: int) -> NonFiniteError:
        """Returns the error with the step that caused it, and with the files that remain."""
        remaining = _what_remains(self.files, self.saved, self.progress.best is not None)
        return NonFiniteError(f"{error}, at step {step} (epoch {epoch}); {remaining}; a lower optimizer.lr may help")

    def validation_is_due(self) -> bool:
        """Returns whether the current step requires a validation that has not been done yet."""
        step, (epochs, into_epoch) = self.progress.step, divmod(self.progress.step, self.epoch_steps)
        is_listed = epochs % self.config.validate_every == 0 or epochs > self.config.epochs - self.config.validate_last
        due = step == self.total_steps or (step > 0 and into_epoch == 0 and is_listed)
        return due and not self.progress.is_validated()

    def validate(self, stop: StopRequest) -> None:
        """Saves the state, validates, and writes the checkpoints. A signal interrupts the validation immediately.

        If there is a moving average of the weights, it is validated and written in their place.
        """
        self.save_once()
        average = self.module.average
        with nullcontext() if average is None else average.in_use():
            self.validate_weights(stop)

    def validate_weights(self, stop: StopRequest) -> None:
        """Validates the weights that the module has, and writes the checkpoints."""
        self.module.eval()
        with stop.at_once():
            validation = self.setup.validate()
        self.module.train()
        progress = self.progress
        self.record(validation.metrics)
        better = progress.best is None or validation.score > progress.best
        if better:
            progress.best = validation.score
        if self.process.first:
            checkpoint_meta = {**self.meta, "epoch": progress.step // self.epoch_steps, "step": progress.step}
            if better:
                save_checkpoint(self.files.best, self.module.model, self.dataset.categories, checkpoint_meta)
            save_checkpoint(self.files.last, self.module.model, self.dataset.categories, checkpoint_meta)
        self.process.wait()
        self.clock.restart(progress.step)

    def record(self, values: dict[str, float]) -> None:
        """Adds scalars of the present step to the history, and reports them."""
        step = self.progress.step
        self.progress.history.append({"step": step, "epoch": step / self.epoch_steps, **values})
        self.reporter.metrics(values, step)
        if (note := self.setup.note()) is not None:
            self.reporter.message(note)

    def save(self) -> None:
        """Saves the state. All processes must call this method together."""
        self.read_losses()
        save_state(self.files.state, self.fingerprint, self.progress, self.module, self.optimizer, self.schedule, self.process)
        self.saved = self.progress.step

    def save_once(self) -> None:
        """Saves the state unless the state on disk is from the same step, or no step has been taken."""
        if self.saved != self.progress.step:
            self.save()

    def interruption_note(self) -> str:
        """Returns a message that says after which step the training was interrupted, and how to continue it."""
        step = self.progress.step
        where = "during the validation after" if self.validation_is_due() else "after"
        point = f"{where} step {step} of {self.total_steps}" if step > 0 else "before the first step"
        return f"interrupted {point}; run the same command again to continue"


def _total_steps(config: TrainConfig, epoch_steps: int) -> int:
    all_epochs = config.epochs * epoch_steps
    return min(all_epochs, config.steps or all_epochs)


def _what_remains(files: TrainingFiles, saved_step: int, validated: bool) -> str:
    sentences = [f"{files.last} and {files.best} are from the last and the best validation"] if validated else []
    if saved_step > 0:
        sentences.append(f"{files.state} is from step {saved_step}")
    return "; ".join(sentences) or "no checkpoint was written yet"


def _steps(
    dataset: CocoDataset,
    config: TrainConfig,
    epoch_steps: int,
    progress: Progress,
    total_steps: int,
    process: ProcessContext,
    workers: int,
) -> Iterator[tuple[int, list[Batch]]]:
    # Yields the epoch, counted from 0, and the micro-batches of each remaining optimizer step.
    multiple = 1 if config.compile is None else config.compile.multiple
    plan = BatchPlan(config.batch_size, config.accumulation, config.seed, config.distribution, multiple)
    remaining = range(progress.step, total_steps)
    batches = copied(all_training_batches(dataset, plan, remaining, process, workers), process.device)
    for step in remaining:
        yield step // epoch_steps, list(islice(batches, config.accumulation))


def _means_since_last_record(progress: Progress, process: ProcessContext) -> dict[str, float]:
    # The losses are normalised over all processes, so the loss is the sum of the processes' shares.
    names = sorted(progress.sums)
    totals = process.total([progress.sums[name] for name in names])
    means = {f"train/{name}": total / progress.summed for name, total in zip(names, totals, strict=True)}
    progress.sums, progress.summed = {}, 0
    return means


class _Clock:
    """Reports the progress at most a few times per second."""

    def __init__(self, step: int, total: int, images: int, reporter: Reporter) -> None:
        self.total, self.images, self.reporter = total, images, reporter
        self.last_report = 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        self.started, self.first_step = time.perf_counter(), step

    def report(self, step: int, loss: float) -> None:
        now = time.perf_counter()
        if now - self.last_report < 0.25 and step < self.total:
            return
        self.last_report = now
        rate = (step - self.first_step) * self.images / max(now - self.started, 1e-9)
        self.reporter.progress(step, self.total, rate, f"loss {loss:.3f}")
