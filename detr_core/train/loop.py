"""The training loop, the same for the detector and for the mask head, for one process and for many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from detr_core.data.batching import steps_in_epoch, training_batches
from detr_core.data.coco import CocoDataset
from detr_core.distributed import Group
from detr_core.loss.matcher import NonFiniteError
from detr_core.model.checkpoint import save_checkpoint
from detr_core.reporter import Reporter, Silent
from detr_core.structures import Batch
from detr_core.train.config import TrainConfig
from detr_core.train.interruption import Interrupted, StopRequest, stop_request
from detr_core.train.optimizer import build_optimizer, learning_rate_factor
from detr_core.train.state import Files, Progress, load_state, require_room, save_state
from detr_core.train.step import take_step
from detr_core.train.tasks import Task

RECORDS = 200  # points on a training curve, whatever the length of the run


@dataclass(frozen=True)
class Validation:
    """What validation found. metrics: `val/...` scalars. score: higher is better; chooses the best checkpoint."""

    metrics: dict[str, float]
    score: float


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
    finite; StorageError where the files have no room, if possible before the first step; and Interrupted, with the state saved,
    where SIGINT or SIGTERM asks one of the processes to stop.
    """
    optimizer = build_optimizer(task, config.optimizer)
    progress, note = load_state(files.state, mark, task, optimizer, group)
    work = _Training(task, dataset, config, files, mark, meta, group, reporter if group.first else Silent(), optimizer, progress)
    if note:
        work.reporter.message(note)
    if group.first:
        require_room(files, task, optimizer)
    for record in progress.history:  # a record of the run that goes on is as whole as that of one never interrupted
        values = {name: value for name, value in record.items() if name not in ("step", "epoch")}
        work.reporter.metrics(values, int(record["step"]))
    if progress.step == 0:
        torch.manual_seed(config.seed + group.rank)  # dropout; the weights were drawn before, alike in all processes
    with stop_request() as stop:
        try:
            work.carry_out(validate, workers, stop)
        except Interrupted as interruption:
            work.save_once()
            raise Interrupted(work.interruption_note(), interruption.signal) from None
    return progress


@dataclass
class _Training:
    """One call of `train` while it runs. saved: the step that the state on disk is of."""

    task: Task
    dataset: CocoDataset
    config: TrainConfig
    files: Files
    mark: str
    meta: dict[str, str]
    group: Group
    reporter: Reporter
    optimizer: torch.optim.Optimizer
    progress: Progress

    def __post_init__(self) -> None:
        self.saved = self.progress.step
        self.epoch_steps = steps_in_epoch(len(self.dataset), self.config.batch_size)
        all_epochs = self.config.epochs * self.epoch_steps
        self.total_steps = min(all_epochs, self.config.steps or all_epochs)
        self.record_every = max(1, self.total_steps // RECORDS)
        self.clock = _Clock(self.progress.step, self.total_steps, self.config.batch_size, self.reporter)

    def carry_out(self, validate: Callable[[], Validation], workers: int, stop: StopRequest) -> None:
        """Takes every step that is left. Raises Interrupted, in all processes, between two steps or during a validation."""
        progress, group = self.progress, self.group
        # Buffers are fixed batch statistics, alike everywhere.
        parallel = DistributedDataParallel(self.task, broadcast_buffers=False) if group.size > 1 else self.task
        self.task.train()
        if self.validation_is_due():  # the interruption was during the validation
            self.validated(validate, stop)
        for epoch, micro_batches in _steps(
            self.dataset, self.config, self.epoch_steps, progress, self.total_steps, group, workers
        ):
            factor = learning_rate_factor(progress.step, self.epoch_steps, self.total_steps, self.config.schedule)
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = parameters["base_lr"] * factor
            try:
                parts = take_step(
                    parallel, self.task, micro_batches, self.optimizer, self.config.optimizer.clip_norm, group, stop
                )
            except NonFiniteError as error:
                kept = _kept(self.files, self.saved, progress.best is not None)
                raise NonFiniteError(f"{error}, at step {progress.step + 1} (epoch {epoch}); {kept}") from None
            progress.add(parts)
            self.clock.tell(progress.step, parts["loss"] * group.size)  # its share of the loss stands for the others'
            if progress.step % self.record_every == 0 or progress.step == self.total_steps:
                self.record(_means_since_last_record(progress, group) | {"train/lr": self.config.optimizer.lr * factor})
            if self.validation_is_due():
                self.validated(validate, stop)
            if progress.step == self.total_steps or progress.step % self.config.checkpoint_every == 0:
                self.save()

    def validation_is_due(self) -> bool:
        """Whether the training stands where it is to be validated, and was not yet."""
        step, (epochs, into_epoch) = self.progress.step, divmod(self.progress.step, self.epoch_steps)
        due = step == self.total_steps or (step > 0 and into_epoch == 0 and epochs % self.config.validate_every == 0)
        return due and not self.progress.is_validated()

    def validated(self, validate: Callable[[], Validation], stop: StopRequest) -> None:
        """Validates, and writes the checkpoints. An interruption of the validation ends it at once: the state is saved before."""
        self.save_once()
        self.task.eval()
        with stop.at_once():
            found = validate()
        self.task.train()
        progress = self.progress
        self.record(found.metrics)
        better = progress.best is None or found.score > progress.best
        if better:
            progress.best = found.score
        if self.group.first:
            about = {**self.meta, "epoch": progress.step // self.epoch_steps, "step": progress.step}
            if better:
                save_checkpoint(self.files.best, self.task.model, self.dataset.categories, about)
            save_checkpoint(self.files.last, self.task.model, self.dataset.categories, about)
        self.group.wait()
        self.clock.restart(progress.step)

    def record(self, values: dict[str, float]) -> None:
        """Keeps these scalars of the step that was just taken, and tells of them."""
        step = self.progress.step
        self.progress.history.append({"step": step, "epoch": step / self.epoch_steps, **values})
        self.reporter.metrics(values, step)

    def save(self) -> None:
        """Saves the state; all processes must call it together."""
        save_state(self.files.state, self.mark, self.progress, self.task, self.optimizer, self.group)
        self.saved = self.progress.step

    def save_once(self) -> None:
        """Saves the state unless that on disk is of the same step; a training without any step needs none."""
        if self.saved != self.progress.step:
            self.save()

    def interruption_note(self) -> str:
        """At which point the training was interrupted, and what to do about it."""
        step = self.progress.step
        where = "during the validation after" if self.validation_is_due() else "after"
        point = f"{where} step {step} of {self.total_steps}" if step > 0 else "before the first step"
        return f"interrupted {point}; run the same command again to continue"


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


def _means_since_last_record(progress: Progress, group: Group) -> dict[str, float]:
    # Each process holds its share of a loss that is already normalised over all of them: their sum is the loss.
    names = sorted(progress.sums)
    totals = group.total([progress.sums[name] for name in names])
    means = {f"train/{name}": total / progress.summed for name, total in zip(names, totals, strict=True)}
    progress.sums, progress.summed = {}, 0
    return means


class _Clock:
    """Tells the reporter of progress a few times a second at most."""

    def __init__(self, step: int, total: int, images: int, reporter: Reporter) -> None:
        self.total, self.images, self.reporter = total, images, reporter
        self.told = 0.0
        self.restart(step)

    def restart(self, step: int) -> None:
        self.started, self.first_step = time.perf_counter(), step

    def tell(self, step: int, loss: float) -> None:
        now = time.perf_counter()
        if now - self.told < 0.25 and step < self.total:
            return
        self.told = now
        rate = (step - self.first_step) * self.images / max(now - self.started, 1e-9)
        self.reporter.progress(step, self.total, rate, f"loss {loss:.3f}")
