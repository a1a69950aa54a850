"""Modules that map a batch to its loss, for the training of each kind of detector and of the mask head on a frozen detector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detr_core.loss.config import FocalLossConfig, LossConfig, MaskLossConfig, RegionLossConfig, SetLossConfig
from detr_core.loss.criterion import Normalizer, set_loss
from detr_core.loss.masks import mask_loss, matched_masks
from detr_core.loss.matcher import match
from detr_core.loss.regions import region_losses
from detr_core.model.deformable import DeformableDetr
from detr_core.model.detector import Detector
from detr_core.model.detr import Detr
from detr_core.model.faster_rcnn import FasterRcnn
from detr_core.model.image import normalise
from detr_core.structures import Batch

# The costs for matching on the frozen detector's last layer. They are the published ones, because the mask head has no box loss.
PUBLISHED_COSTS = LossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=False)


class DetectionTask(nn.Module):
    """Trains DETR or Deformable DETR by the set loss, on every decoder layer if auxiliary losses are on."""

    def __init__(self, model: Detr | DeformableDetr, loss: SetLossConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision

    def normalizer(self, counts: list[int]) -> Normalizer:
        """Returns the divisors of the losses for images with `counts` targets."""
        if isinstance(self.loss, FocalLossConfig):
            return Normalizer.of_focal(counts)
        return Normalizer.of(counts, self.model.config.queries, self.loss.no_object)

    def forward(self, batch: Batch, normalizer: Normalizer) -> tuple[Tensor, dict[str, Tensor]]:
        images = normalise(batch.images, batch.padding)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            output = self.model(images, batch.padding)
        # Matching and losses are computed in float32 for any precision of the network.
        first = 0 if self.loss.auxiliary else -1
        logits, boxes = output.logits[first:].float(), output.boxes[first:].float()
        matches = match(logits, boxes, batch.targets, self.loss)
        losses = set_loss(logits, boxes, batch.targets, matches, normalizer, self.loss)
        parts = {"classification": losses.classification[-1], "l1": losses.l1[-1], "giou": losses.giou[-1]}
        total = losses.total
        if not self.loss.auxiliary:  # weight 0 for earlier layers' heads, because DDP needs gradients of all weights
            total = total + 0 * (output.logits[:-1].float().sum() + output.boxes[:-1].sum())
        return total, parts


class RegionTask(nn.Module):
    """Trains Faster R-CNN on the anchors and proposals that it samples."""

    def __init__(self, model: FasterRcnn, loss: RegionLossConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision

    def normalizer(self, counts: list[int]) -> Normalizer:
        """Returns the divisors of the losses for `len(counts)` images. Every image has the same weight."""
        return Normalizer(len(counts), len(counts))

    def forward(self, batch: Batch, normalizer: Normalizer) -> tuple[Tensor, dict[str, Tensor]]:
        images = normalise(batch.images, batch.padding)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            samples = self.model.samples(images, batch.padding, batch.targets)
        return region_losses(samples, normalizer.boxes, self.loss)


class PanopticTask(nn.Module):
    """Trains the mask head. The detector is frozen: it has no gradients, dropout or batch statistics in any mode."""

    def __init__(self, model: Detr, loss: MaskLossConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision
        model.requires_grad_(False)
        model.bbox_attention.requires_grad_(True)
        model.mask_head.requires_grad_(True)

    def train(self, mode: bool = True) -> PanopticTask:
        super().train(False)  # the detector must stay in eval mode; the mask head does not depend on the mode
        return self

    def normalizer(self, counts: list[int]) -> Normalizer:
        """Returns the divisors of the losses for images with `counts` targets."""
        return Normalizer.of(counts, self.model.config.queries, PUBLISHED_COSTS.no_object)

    def forward(self, batch: Batch, normalizer: Normalizer) -> tuple[Tensor, dict[str, Tensor]]:
        images = normalise(batch.images, batch.padding)
        with torch.autocast(images.device.type, self.precision, enabled=self.precision != torch.float32):
            with torch.no_grad():
                output = self.model(images, batch.padding)
            matches = match(output.logits[-1:], output.boxes[-1:], batch.targets, PUBLISHED_COSTS)
            # A batch without targets runs the head once with weight 0, because DDP needs gradients in every process.
            matched = len(matches.image) > 0
            image = matches.image if matched else matches.image.new_zeros(1)
            query = matches.query if matched else matches.query.new_zeros(1)
            logits = self.model.masks(output, image, query)
        if not matched:
            nothing = logits.float().sum() * 0
            return nothing, {"focal": nothing.detach(), "dice": nothing.detach()}
        masks = matched_masks(batch.targets, matches, (images.shape[-2], images.shape[-1]))
        focal, dice = mask_loss(logits, masks, normalizer.boxes, self.loss)
        return self.loss.focal * focal + self.loss.dice * dice, {"focal": focal.detach(), "dice": dice.detach()}


DetectorTask = DetectionTask | RegionTask
Task = DetectorTask | PanopticTask


def detector_task(model: Detector, loss: LossConfig | FocalLossConfig | RegionLossConfig, precision: torch.dtype) -> DetectorTask:
    """Returns the task that trains this kind of detector. `require_fit` has checked that `loss` belongs to this kind."""
    if isinstance(model, FasterRcnn):
        assert isinstance(loss, RegionLossConfig)
        return RegionTask(model, loss, precision)
    assert not isinstance(loss, RegionLossConfig)
    return DetectionTask(model, loss, precision)
