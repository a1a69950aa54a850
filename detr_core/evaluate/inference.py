"""The detector's pass over a split, and what its classes are called there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import torch
from torch import Tensor

from detr_core.data.batching import evaluation_batches
from detr_core.data.coco import CocoDataset
from detr_core.data.dataset import DatasetError
from detr_core.distributed import Group
from detr_core.model.detector import Detector
from detr_core.model.detr import Detr
from detr_core.model.image import normalise
from detr_core.reporter import Reporter
from detr_core.structures import AnyOutput, Category, Output, Target

# So many pixels of finest mask map are computed at once; it bounds memory and changes no result.
MASK_PIXELS = 2**21


@dataclass(frozen=True)
class Classes:
    """A detector's classes as a dataset knows them.

    ids [C]: int64 category ids. known [C + 1]: bool, whether the dataset has the category; thing [C + 1]: whether it is a
    thing there too. The last entry stands for no-object and is False.
    """

    ids: np.ndarray
    known: Tensor
    thing: Tensor

    @property
    def isthing(self) -> list[bool]:
        """Of each class index, as merging wants it."""
        return [bool(flag) for flag in self.thing[:-1]]


def classes_in(categories: Sequence[Category], dataset: CocoDataset) -> Classes:
    """The detector's `categories` in `dataset`, matched by category id; classes that it doesn't have can't be scored.

    Raises DatasetError where no category is shared, or where one id has two names (a checkpoint may not know its names).
    """
    file = dataset.split.instances if dataset.split.panoptic is None else dataset.split.panoptic
    theirs = {category.id: category for category in dataset.categories}
    shared = [category for category in categories if category.id in theirs]
    if not shared:
        raise DatasetError(
            f"{file}: categories: expected some of the checkpoint's, found none; evaluate it on data of its classes"
        )
    for category in shared:
        name = theirs[category.id].name
        if category.name and name != category.name:
            raise DatasetError(
                f"{file}: categories: expected id {category.id} to be {category.name!r}, as in the checkpoint, found {name!r}"
            )
    known = [category.id in theirs for category in categories]
    thing = [category.id in theirs and theirs[category.id].isthing for category in categories]
    return Classes(
        np.array([category.id for category in categories]), torch.tensor([*known, False]), torch.tensor([*thing, False])
    )


@overload
def forward_pass(
    model: Detr, dataset: CocoDataset, batch_size: int, group: Group, workers: int, reporter: Reporter
) -> Iterator[tuple[list[Target], tuple[int, int], Output]]: ...
@overload
def forward_pass(
    model: Detector, dataset: CocoDataset, batch_size: int, group: Group, workers: int, reporter: Reporter
) -> Iterator[tuple[list[Target], tuple[int, int], AnyOutput]]: ...
def forward_pass(
    model: Detector, dataset: CocoDataset, batch_size: int, group: Group, workers: int, reporter: Reporter
) -> Iterator[tuple[list[Target], tuple[int, int], AnyOutput]]:
    """Runs the detector over this process's share of the images: yields targets, padded size (H, W) and output of each batch.

    The processes of `group` share the batches, which are the same however many they are; one may have none.
    The model is in eval mode meanwhile; afterwards each module is as it was. Iterate under `torch.inference_mode`.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    done, start = 0, time.perf_counter()
    try:
        batches = evaluation_batches(dataset, batch_size, group.rank, group.size, workers)
        share = sum(map(len, batches.batch_sampler or ()))
        for batch in batches:
            images, padding = batch.images.to(group.device, non_blocking=True), batch.padding.to(group.device, non_blocking=True)
            height, width = images.shape[-2:]
            yield batch.targets, (height, width), model(normalise(images, padding), padding)
            done += len(batch.targets)
            told = len(dataset) * done // share  # this process's progress stands for the others'
            reporter.progress(told, len(dataset), told / (time.perf_counter() - start), "")
    finally:
        for module in training:
            module.training = True


def query_masks(model: Detr, output: Output, needed: Tensor) -> tuple[Tensor, Tensor]:
    """Mask logits of the queries that matter.

    needed [B, Q]: bool, on the CPU. Returns (masks [K, h, w] on the model's device, row [B, Q]: a query's row in masks, -1 for
    one that isn't needed). Each mask depends on its own query alone, so the others need not be computed.
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
