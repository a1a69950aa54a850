"""Validates a detector during its training. The scores select the best checkpoint; no weight depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from detr_core.data.splits import DatasetError
from detr_core.evaluate.config import EvaluateConfig
from detr_core.evaluate.inference import EvaluationData
from detr_core.evaluate.metric_names import PANOPTIC_METRICS
from detr_core.evaluate.predictions import average_precision_of, mask_metrics_of
from detr_core.model.common.detector import Detector
from detr_core.structures import Batch, Validation

if TYPE_CHECKING:
    from detr_core.model.detr.model import Detr  # trainings of other kinds do not need DETR's code


class MaskLosses(Protocol):
    """A module that computes the losses of masks: called with a batch and a normalizer, it returns the loss and its parts.

    The parts `focal` and `dice` are divided by the number `boxes` of the normalizer, which `normalizer` returns for images with
    `counts` targets.
    """

    def normalizer(self, counts: list[int]) -> Any: ...

    def __call__(self, batch: Batch, normalizer: Any) -> tuple[Tensor, dict[str, Tensor]]: ...


def validate_boxes(model: Detector, val: EvaluationData) -> Validation:
    """Computes the average precision of boxes, which selects the best checkpoint.

    Raises DatasetError if the split has no objects to score against.
    """
    metrics = average_precision_of(model, val.dataset.categories, val)
    _require_objects(metrics, val)
    return Validation(_with_prefix(metrics), metrics["AP"])


def validate_masks(model: Detector, masks: bool, merging: EvaluateConfig | None, val: EvaluationData) -> Validation:
    """Computes the average precision of boxes and, with `masks`, of masks, which then selects the best checkpoint.

    masks: whether the instances of the split have masks. merging: how the segments are merged into a panoptic map, for which the
    panoptic quality is computed, too; None computes none. Raises DatasetError as `validate_boxes` does.
    """
    metrics = mask_metrics_of(model, val.dataset.categories, val, masks, merging)
    _require_objects(metrics, val)
    return Validation(_with_prefix(metrics), metrics["mask/AP" if masks else "AP"])


@torch.inference_mode()
def validate_mask_losses(
    losses: MaskLosses,
    weights: dict[str, float],
    detector: Detr,
    learns: bool,
    merging: EvaluateConfig | None,
    val: EvaluationData,
) -> Validation:
    """Computes the losses of the masks, of which the smallest selects the best checkpoint, and the panoptic quality.

    weights: the factors of the losses `focal` and `dice` in their sum, the loss. learns: whether the detector learns too; then
    the average precision of its boxes is computed. merging: as in `validate_masks`.
    """
    batch_losses: list[tuple[int, int, dict[str, float]]] = []  # per batch: first image id, number of targets, summed losses
    for batch in val.batches():
        counts = [len(target.labels) for target in batch.targets]
        normalizer = losses.normalizer(counts)
        _, parts = losses(batch.to(val.process.device), normalizer)
        focal, dice = parts["focal"], parts["dice"]
        total = weights["focal"] * focal + weights["dice"] * dice
        sums = {name: float(value) * normalizer.boxes for name, value in {"loss": total, "focal": focal, "dice": dice}.items()}
        batch_losses.append((batch.targets[0].image_id, sum(counts), sums))
    # The sums are added in the order of the images, so that the result does not depend on the number of processes.
    all_losses = sorted((entry for share in val.process.gather(batch_losses) for entry in share), key=lambda entry: entry[0])
    boxes = max(sum(count for _, count, _ in all_losses), 1)
    means = {name: sum(sums[name] for _, _, sums in all_losses) / boxes for name in all_losses[0][2]}
    metrics: dict[str, float] = {}
    if merging is not None:
        metrics = mask_metrics_of(detector, val.dataset.categories, val, False, merging)
    elif learns:
        metrics = average_precision_of(detector, val.dataset.categories, val)
    kept = {name: value for name, value in metrics.items() if learns or name in PANOPTIC_METRICS}
    return Validation(_with_prefix(means | kept), -means["loss"])


def _require_objects(metrics: dict[str, float], val: EvaluationData) -> None:
    if metrics["AP"] < 0:
        split = val.dataset.split
        raise DatasetError(
            f"{split.name} split, {split.instances or split.panoptic}: expected objects to score against, found "
            "none; without them the average precision and the best checkpoint cannot be determined"
        )


def _with_prefix(metrics: dict[str, float]) -> dict[str, float]:
    return {f"val/{name}": value for name, value in metrics.items()}
