"""Defines the modules that train the mask head: on a frozen detector, or together with the detector."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_core.loss.config import SoftmaxLossConfig
from detr_core.loss.criterion import Normalizer
from detr_core.loss.matcher import Matches, match
from detr_core.model.common.normalisation import normalise
from detr_core.model.detr.model import Detr
from detr_core.structures import Batch, SoftmaxOutput
from detr_core.train.modules import DetectionTrainingModule, TrainingModule
from detr_core.train_mask_head.config import MaskLossConfig
from detr_core.train_mask_head.loss import mask_loss, matched_masks, with_masks

# The costs for matching on the frozen detector's last layer. They are the published costs: the configuration of a mask head
# has no box loss from which they could be taken.
PUBLISHED_COSTS = SoftmaxLossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=False)


class FrozenTrainingModule(TrainingModule):
    """Trains the mask head. The detector is frozen: it has no gradients, dropout or batch statistics in any mode."""

    model: Detr

    def __init__(self, model: Detr, loss: MaskLossConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision
        model.requires_grad_(False)
        model.bbox_attention.requires_grad_(True)
        model.mask_head.requires_grad_(True)

    def train(self, mode: bool = True) -> FrozenTrainingModule:
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
            matches = with_masks(matches, batch.targets)
            logits = _mask_logits(self.model, output, matches)
        return _mask_losses(logits, matches, batch, normalizer.boxes, self.loss)


class JointTrainingModule(DetectionTrainingModule):
    """Trains the mask head together with the detector: by the set loss, and by the losses of the masks.

    Both follow from the same matching. As published, only the last decoder layer has masks, because those of the auxiliary
    losses' layers would cost too much. The mode decides about the detector's dropout, as in the training of a detector.
    """

    model: Detr

    def __init__(self, model: Detr, loss: SoftmaxLossConfig, mask_loss: MaskLossConfig, precision: torch.dtype) -> None:
        super().__init__(model, loss, precision)
        self.mask_loss = mask_loss

    def forward(self, batch: Batch, normalizer: Normalizer) -> tuple[Tensor, dict[str, Tensor]]:
        output, matches, total, parts = self.detect(batch, normalizer)
        assert isinstance(output, SoftmaxOutput)  # the output of a Detr
        matches = with_masks(matches, batch.targets)
        with torch.autocast(batch.images.device.type, self.precision, enabled=self.precision != torch.float32):
            logits = _mask_logits(self.model, output, matches)
        mask_total, mask_parts = _mask_losses(logits, matches, batch, normalizer.boxes, self.mask_loss)
        return total + mask_total, parts | mask_parts


def _mask_logits(model: Detr, output: SoftmaxOutput, matches: Matches) -> Tensor:
    # A batch without masks runs the head once with weight 0, because DDP needs gradients in every process.
    matched = len(matches.image) > 0
    image = matches.image if matched else matches.image.new_zeros(1)
    query = matches.query if matched else matches.query.new_zeros(1)
    return model.masks(output, image, query)


def _mask_losses(
    logits: Tensor, matches: Matches, batch: Batch, boxes: float, config: MaskLossConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    if len(matches.image) == 0:
        zero = logits.float().sum() * 0
        return zero, {"focal": zero.detach(), "dice": zero.detach()}
    masks = matched_masks(batch.targets, matches, (batch.images.shape[-2], batch.images.shape[-1]))
    focal, dice = mask_loss(logits, masks, boxes, config)
    return config.focal * focal + config.dice * dice, {"focal": focal.detach(), "dice": dice.detach()}
