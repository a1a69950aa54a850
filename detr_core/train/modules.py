"""Modules that map a batch to its loss, for the training of each kind of detector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detr_core.loss.config import FocalLossConfig, LossConfig, SetLossConfig
from detr_core.loss.criterion import Normalizer, set_loss
from detr_core.loss.matcher import match
from detr_core.model.common.normalisation import normalise
from detr_core.model.deformable.model import DeformableDetr
from detr_core.model.detector import Detector
from detr_core.model.detr.model import Detr
from detr_core.model.faster_rcnn.config import RegionLossConfig
from detr_core.model.faster_rcnn.loss import region_losses
from detr_core.model.faster_rcnn.model import FasterRcnn
from detr_core.structures import Batch


class TrainingModule(nn.Module):
    """A model with its loss: called with a batch and a normalizer, it returns the loss, with its gradient, and its parts."""

    model: Detector

    def normalizer(self, counts: list[int]) -> Normalizer:
        """What the losses are divided by, for images with so many targets each."""
        raise NotImplementedError


class DetectionTrainingModule(TrainingModule):
    """Trains DETR or Deformable DETR by the set loss, on every decoder layer if auxiliary losses are on."""

    model: Detr | DeformableDetr

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


class RegionTrainingModule(TrainingModule):
    """Trains Faster R-CNN on the anchors and proposals that it samples."""

    model: FasterRcnn

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


DetectorTrainingModule = DetectionTrainingModule | RegionTrainingModule


def detector_training_module(
    model: Detector, loss: LossConfig | FocalLossConfig | RegionLossConfig, precision: torch.dtype
) -> DetectorTrainingModule:
    """Returns the task that trains this kind of detector. `require_fit` has checked that `loss` belongs to this kind."""
    if isinstance(model, FasterRcnn):
        assert isinstance(loss, RegionLossConfig)
        return RegionTrainingModule(model, loss, precision)
    assert not isinstance(loss, RegionLossConfig)
    return DetectionTrainingModule(model, loss, precision)
