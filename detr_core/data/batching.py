"""Forms batches in an order that depends only on the seed, and not on the number of processes or on interruptions."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from detr_core.data.coco_dataset import CocoDataset, Sample
from detr_core.data.distribution import Distribution, by_shape, contiguous
from detr_core.data.splits import DatasetError
from detr_core.data.transforms import EvaluationTransform, resized
from detr_core.distributed import ProcessContext
from detr_core.structures import Batch, Padding, Target

Key = tuple[int, int]


def collate(samples: list[Sample], multiple: int = 1) -> Batch:
    """Returns a batch of images, padded with zeros at the right and bottom to the largest height and width.

    multiple: both are rounded up to a multiple of this number of pixels.
    """
    height, width = (-(-max(sample.image.shape[axis] for sample in samples) // multiple) * multiple for axis in (1, 2))
    # The memory layout stays channels-last, as decoding and resizing produce it. A conversion would take as long as decoding.
    images = torch.zeros(len(samples), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    padding = torch.ones(len(samples), height, width, dtype=torch.bool)
    for index, sample in enumerate(samples):
        _, h, w = sample.image.shape
        images[index, :, :h, :w] = sample.image
        padding[index, :h, :w] = False
    sizes = tuple((sample.image.shape[1], sample.image.shape[2]) for sample in samples)
    return Batch(images, Padding(padding, sizes), [_with_has_mask(sample.target) for sample in samples])


def _with_has_mask(target: Target) -> Target:
    # The dataloader worker computes this, so that a step need not wait for the GPU to learn it.
    return target if target.masks is None else replace(target, has_mask=target.masks.flatten(1).any(1))


def steps_in_epoch(images: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch. An incomplete last batch is dropped, unless it is the only one."""
    return max(1, images // batch_size)


@dataclass(frozen=True)
class BatchPlan:
    """Says how the images of each epoch of a training are divided into batches.

    batch_size: the number of images of one optimizer step, in all processes together. accumulation: the number of micro-batches
    into which each process divides its share of a batch. seed: determines the order of the images, together with the epoch.
    distribution: which images of a batch a micro-batch gets. `random`: those at its place in the random order. `by_shape`: those
    of similar shape after the augmentation, so that little is padded; see `detr_core.data.distribution.by_shape`.
    multiple: the padded height and width are multiples of this number of pixels.
    """

    batch_size: int
    accumulation: int
    seed: int
    distribution: Distribution = "random"
    multiple: int = 1


@dataclass(frozen=True)
class _Steps:
    """The keys of the images of the micro-batches of one process, from step `first` of a training to the step before `last`."""

    dataset: CocoDataset
    plan: BatchPlan
    first: int
    last: int
    process: ProcessContext

    def __iter__(self) -> Iterator[list[Key]]:
        step, epoch_steps = self.first, steps_in_epoch(len(self.dataset), self.plan.batch_size)
        while step < self.last:
            epoch, into_epoch = divmod(step, epoch_steps)
            of_epoch = training_batches(self.dataset, self.plan, epoch, into_epoch, self.process, 0).batch_sampler
            count = min(epoch_steps - into_epoch, self.last - step)
            yield from islice(cast(Any, of_epoch), count * self.plan.accumulation)
            step += count


def all_training_batches(
    dataset: CocoDataset, plan: BatchPlan, steps: range, process: ProcessContext, workers: int
) -> DataLoader[Batch]:
    """Returns the micro-batches of one process in these steps of a training, counted from 0, over all epochs.

    They are those of `training_batches`. The dataloader workers stay the same from epoch to epoch, and read the first images of
    an epoch during the last steps of the one before. Iteration raises DatasetError as `training_batches` does.
    """
    return _loader(dataset, _Steps(dataset, plan, steps.start, steps.stop, process), workers, plan.multiple)


def training_batches(
    dataset: CocoDataset, plan: BatchPlan, epoch: int, start_step: int, process: ProcessContext, workers: int
) -> DataLoader[Batch]:
    """Returns the micro-batches of one process, from batch `start_step` of this epoch to the epoch's end.

    The images of an epoch are permuted by (seed, epoch). Each batch is a contiguous slice of them, whose images are distributed
    among the processes and their micro-batches as `plan` says. Every micro-batch has at least one image. Batches before
    `start_step` are not read.
    workers: the number of dataloader workers. Raises DatasetError if a batch has fewer images than micro-batches.
    """
    batch_size, accumulation = plan.batch_size, plan.accumulation
    order = np.random.default_rng([plan.seed, epoch]).permutation(len(dataset)).tolist()
    if min(batch_size, len(order)) < process.size * accumulation:
        raise DatasetError(
            f"{dataset.split.images}: expected at least one image for each of {process.size} processes x {accumulation} "
            f"micro-batches, found batches of {min(batch_size, len(order))}"
        )
    batches = [
        [(epoch, index) for index in order[step * batch_size : (step + 1) * batch_size]]
        for step in range(start_step, steps_in_epoch(len(order), batch_size))
    ]
    return _loader(dataset, _MicroBatches(dataset, plan, batches, process), workers, plan.multiple)


@dataclass(frozen=True)
class _MicroBatches:
    """The keys of the images of each micro-batch of one process. The sizes of images are computed when their batch is due."""

    dataset: CocoDataset
    plan: BatchPlan
    batches: list[list[Key]]
    process: ProcessContext

    def __len__(self) -> int:
        return len(self.batches) * self.plan.accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        processes, accumulation = self.process.size, self.plan.accumulation
        for batch in self.batches:
            if self.plan.distribution == "by_shape" and processes * accumulation > 1:
                parts = by_shape([self.dataset.input_size(key) for key in batch], processes, accumulation)
            else:
                parts = contiguous(len(batch), processes, accumulation)
            for positions in parts[self.process.rank]:
                yield [batch[position] for position in positions]


def evaluation_batches(dataset: CocoDataset, batch_size: int, process: ProcessContext, workers: int) -> DataLoader[Batch]:
    """Returns this process's batches for evaluation. Together the processes read every image once.

    The images of a batch have the same input size, so that nothing is padded. workers: the number of dataloader workers.
    Raises TypeError if the dataset's transform is neither None nor an EvaluationTransform, whose sizes are known beforehand.
    """
    transform = dataset.transform
    if transform is not None and not isinstance(transform, EvaluationTransform):
        raise TypeError(f"expected a dataset with an EvaluationTransform, found one with {type(transform).__name__}")
    same_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, size in enumerate(dataset.sizes):
        same_size[resized(size, transform.resize if transform is not None else None)].append(index)
    batches = [
        indices[start : start + batch_size] for indices in same_size.values() for start in range(0, len(indices), batch_size)
    ]
    return _loader(dataset, [[(0, index) for index in batch] for batch in batches[process.rank :: process.size]], workers)


def _loader(dataset: CocoDataset, keys: Iterable[list[Key]], workers: int, multiple: int = 1) -> DataLoader[Batch]:
    # The loader gets a generator of its own. Otherwise it would draw from torch's global one at every start, and a resumed run
    # starts loaders more often.
    return DataLoader(
        cast(Any, dataset),
        batch_sampler=cast(Any, keys),
        collate_fn=collate if multiple == 1 else partial(collate, multiple=multiple),
        num_workers=workers,
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=forget_exit_hooks,
    )


def forget_exit_hooks(worker: int) -> None:
    """Removes what the parent of this dataloader worker has registered with `threading` for its end.

    A worker is a fork of its parent without the parent's threads. A hook that stops such a thread, as Prefect's do, fails there,
    and the worker would seem to have crashed.
    """
    hooks = getattr(threading, "_threading_atexits", None)  # threading offers no function for this
    if hooks is not None:
        hooks.clear()
