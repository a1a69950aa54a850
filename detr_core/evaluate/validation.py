"""Validates a detector during its training. The scores select the best checkpoint; no weight depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from detr_core.data.batching import evaluation_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import DatasetError
from detr_core.distributed import ProcessContext
from detr_core.evaluate.predictions import average_precision_of, mask_average_precision_of
from detr_core.model.common.detector import Detector
from detr_core.reporter import Silent
from detr_core.structures import Batch, Validation

if TYPE_CHECKING:
    from detr_core.model.detr.model import Detr  # trainings of other kinds do not need DETR's code


@dataclass(frozen=True)
class ValidationData:
    """The images of a validation, and how they are read.

    dataset: the val split. batch_size: the number of images that a process reads at once. process: this process, one of several
    that validate together or the only one. workers: the number of dataloader workers.
    """

    dataset: CocoDataset
    batch_size: int
    process: ProcessContext
    workers: int


class MaskLosses(Protocol):
    """A module that computes the losses of masks: called with a batch and a normalizer, it returns the loss and its parts.

    The parts `focal` and `dice` are divided by the number `boxes` of the normalizer, which `normalizer` returns for images with
    `counts` targets.
    """

    def normalizer(self, counts: list[int]) -> Any: ...

    def __call__(self, batch: Batch, normalizer: Any) -> tuple[Tensor, dict[str, Tensor]]: ...


def validate_boxes(model: Detector, val: ValidationData) -> Validation:
    """Computes the average precision of boxes, which selects the best checkpoint.

    Raises DatasetError if the split has no objects to score against.
    """
    metrics = average_precision_of(model, val.dataset.categories, *_arguments(val), Silent())
    if metrics["AP"] < 0:
        split = val.dataset.split
        raise DatasetError(
            f"{split.name} split, {split.instances or split.panoptic}: expected objects to score against, found "
            "none; without them the average precision and the best checkpoint cannot be determined"
        )
    return Validation(_named(metrics), metrics["AP"])


def validate_masks(model: Detector, val: ValidationData) -> Validation:
    """Computes the average precision of boxes and masks; that of masks selects the best checkpoint."""
    metrics = mask_average_precision_of(model, val.dataset.categories, *_arguments(val), Silent())
    return Validation(_named(metrics), metrics["mask/AP"])


@torch.inference_mode()
def validate_mask_losses(losses: MaskLosses, weights: dict[str, float], val: ValidationData, detector: Detr | None) -> Validation:
    """Computes the losses of the masks, of which the smallest selects the best checkpoint.

    weights: the factors of the losses `focal` and `dice` in their sum, the loss. detector: the detector if it learns, for which
    the average precision of boxes is computed too; else None. The evaluation stage computes the panoptic quality.
    """
    batch_losses: list[tuple[int, int, dict[str, float]]] = []  # per batch: first image id, number of targets, summed losses
    for batch in evaluation_batches(*_arguments(val)):
        counts = [len(target.labels) for target in batch.targets]
        normalizer = losses.normalizer(counts)
        _, parts = losses(batch.to(val.process.device), normalizer)
        focal, dice = parts["focal"], parts["dice"]
        total = weights["focal"] * focal + weights["dice"] * dice
        sums = {name: float(value) * normalizer.boxes for name, value in {"loss": total, "focal": focal, "dice": dice}.items()}
        batch_losses.append((batch.targets[0].image_id, sum(counts), sums))
    # The sums are added in the order of the images, so that the result does not depend on the number of processes.
    everything = sorted((entry for share in val.process.gather(batch_losses) for entry in share), key=lambda entry: entry[0])
    boxes = max(sum(count for _, count, _ in everything), 1)
    means = {name: sum(sums[name] for _, _, sums in everything) / boxes for name in everything[0][2]}
    of_boxes = {}
    if detector is not None:
        of_boxes = average_precision_of(detector, val.dataset.categories, *_arguments(val), Silent())
    return Validation(_named(means | of_boxes), -means["loss"])


def _arguments(val: ValidationData) -> tuple[CocoDataset, int, ProcessContext, int]:
    return val.dataset, val.batch_size, val.process, val.workers


def _named(metrics: dict[str, float]) -> dict[str, float]:
    return {f"val/{name}": value for name, value in metrics.items()}
