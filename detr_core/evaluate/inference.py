"""Runs a detector over a split, and maps its classes to the categories of the dataset."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detr_core.data.batching import evaluation_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import DatasetError
from detr_core.distributed import ProcessContext
from detr_core.model.common.detector import Detector
from detr_core.model.common.normalisation import normalise
from detr_core.reporter import Reporter
from detr_core.structures import AnyOutput, Batch, Category, Padding, SoftmaxOutput, Target

if TYPE_CHECKING:
    from detr_core.model.detr.model import Detr

# Pixels of the finest mask map that are computed at once. The limit bounds the memory and changes no result.
MASK_PIXELS = 2**21


@dataclass(frozen=True)
class Classes:
    """A detector's classes as categories of a dataset.

    ids [C]: int64 category ids. known [C + 1]: bool, whether the dataset has the category. thing [C + 1]: bool, whether the
    category is a thing in the dataset. The last entry of both belongs to no-object and is False.
    """

    ids: np.ndarray
    known: Tensor
    thing: Tensor

    @property
    def isthing(self) -> list[bool]:
        """Whether each class is a thing, by class index."""
        return [bool(flag) for flag in self.thing[:-1]]


def classes_in(categories: Sequence[Category], dataset: CocoDataset) -> Classes:
    """Returns the detector's `categories` matched with those of `dataset` by category id. Only shared classes can be scored.

    Raises DatasetError if no category is shared, or if an id has different names. A checkpoint may lack the names.
    """
    file = dataset.split.instances if dataset.split.panoptic is None else dataset.split.panoptic
    dataset_categories = {category.id: category for category in dataset.categories}
    shared = [category for category in categories if category.id in dataset_categories]
    if not shared:
        raise DatasetError(
            f"{file}: categories: expected some of the checkpoint's categories, found none; evaluate the checkpoint on data with "
            "its classes"
        )
    for category in shared:
        name = dataset_categories[category.id].name
        if category.name and name != category.name:
            raise DatasetError(
                f"{file}: categories: expected id {category.id} to be {category.name!r}, as in the checkpoint, found {name!r}; "
                "evaluate the checkpoint on data with its classes, or fine-tune it on this dataset first"
            )
    known = [category.id in dataset_categories for category in categories]
    thing = [category.id in dataset_categories and dataset_categories[category.id].isthing for category in categories]
    return Classes(
        np.array([category.id for category in categories]), torch.tensor([*known, False]), torch.tensor([*thing, False])
    )


@dataclass(frozen=True)
class EvaluationData:
    """The images that a detector is evaluated or validated on, and how they are read.

    dataset: the images. batch_size: the number of images that a process reads at once. process: this process, one of several that
    divide the images or the only one. workers: the number of dataloader workers. reporter: gets the progress.
    """

    dataset: CocoDataset
    batch_size: int
    process: ProcessContext
    workers: int
    reporter: Reporter

    def batches(self) -> DataLoader[Batch]:
        """Returns this process's batches, which do not depend on the number of processes. A process may have none."""
        return evaluation_batches(self.dataset, self.batch_size, self.process, self.workers)


Forward = Callable[[Tensor, Padding], AnyOutput]


@overload
def forward_pass(model: Detr, data: EvaluationData) -> Iterator[tuple[list[Target], tuple[int, int], SoftmaxOutput]]: ...
@overload
def forward_pass(
    model: Detector, data: EvaluationData, forward: Forward | None = None
) -> Iterator[tuple[list[Target], tuple[int, int], AnyOutput]]: ...
def forward_pass(
    model: Detector, data: EvaluationData, forward: Forward | None = None
) -> Iterator[tuple[list[Target], tuple[int, int], AnyOutput]]:
    """Runs the detector over this process's share of the images. Yields targets, padded size (H, W) and output of each batch.

    forward: returns the output for normalised images and their padding, if it is not the model itself.
    The model is in eval mode during the iteration; afterwards each module has its earlier mode. Iterate under
    `torch.inference_mode`.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    done, start = 0, time.perf_counter()
    try:
        batches = data.batches()
        share = sum(map(len, batches.batch_sampler or ()))
        for batch in batches:
            images = batch.images.to(data.process.device, non_blocking=True)
            padding = batch.padding.to(data.process.device)
            height, width = images.shape[-2:]
            yield batch.targets, (height, width), (forward or model)(normalise(images, padding), padding)
            done += len(batch.targets)
            images_in_all = len(data.dataset)
            all_done = images_in_all * done // share  # the progress of all processes, estimated from this one
            data.reporter.progress(all_done, images_in_all, all_done / (time.perf_counter() - start), "")
    finally:
        for module in training:
            module.training = True


def query_masks(model: Detector, output: SoftmaxOutput, needed: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mask logits of the needed queries.

    needed [B, Q]: bool, on the CPU. Returns (masks [K, h, w] on the model's device, row [B, Q]: the row of each query in masks,
    -1 for a query that is not needed). Each mask depends only on its own query, so the other masks are not computed.
    """
    device = output.queries.device
    row = torch.full(needed.shape, -1)
    row[needed] = torch.arange(int(needed.sum()))
    if not needed.any():
        return torch.zeros(0, 1, 1, device=device), row
    image, query = needed.nonzero(as_tuple=True)
    finest = output.pyramid[-1]
    at_once = max(1, MASK_PIXELS // (finest.shape[-2] * finest.shape[-1]))
    pairs = zip(torch.split(image.to(device), at_once), torch.split(query.to(device), at_once), strict=True)
    return torch.cat([model.masks(output, images, queries) for images, queries in pairs]), row
