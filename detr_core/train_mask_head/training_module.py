"""What is trained: the mask head on a frozen detector, a module from a batch to its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_core.loss.config import LossConfig
from detr_core.loss.criterion import Normalizer
from detr_core.loss.matcher import match
from detr_core.model.common.normalisation import normalise
from detr_core.model.detr.model import Detr
from detr_core.structures import Batch
from detr_core.train.modules import TrainingModule
from detr_core.train_mask_head.config import MaskLossConfig
from detr_core.train_mask_head.loss import mask_loss, matched_masks

# The costs for matching on the frozen detector's last layer. They are the published ones, because the mask head has no box loss.
PUBLISHED_COSTS = LossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=False)


class PanopticTrainingModule(TrainingModule):
    """Trains the mask head. The detector is frozen: it has no gradients, dropout or batch statistics in any mode."""

    model: Detr

    def __init__(self, model: Detr, loss: MaskLossConfig, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.loss, self.precision = model, loss, precision
        model.requires_grad_(False)
        model.bbox_attention.requires_grad_(True)
        model.mask_head.requires_grad_(True)

    def train(self, mode: bool = True) -> PanopticTrainingModule:
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
