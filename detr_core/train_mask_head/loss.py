"""Computes the mask head's losses (section 4.4 of the paper): focal loss and DICE loss of matched queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from detr_core.loss.matcher import Matches
from detr_core.structures import Target
from detr_core.train_mask_head.config import MaskLossConfig


def with_masks(matches: Matches, targets: list[Target]) -> Matches:
    """Returns the pairs of the last decoder layer whose object has a mask. `Target.masks` of every image must not be None.

    An object whose annotation has only a box is matched like any other, so that no other object gets its query, but its query
    gets no mask loss.
    """
    rows = (
        torch.stack([matches.layer, matches.image, matches.query, matches.target]).cpu()
        if matches.on_host is None
        else matches.on_host
    )
    has_mask = torch.cat([_has_mask(target) for target in targets])
    chosen = has_mask[rows[3]] & (rows[0] == rows[0, -1:])
    return Matches.of(rows[:, chosen], matches.layer.device)


def matched_masks(targets: list[Target], matches: Matches, padded: tuple[int, int]) -> Tensor:
    """Returns the targets' masks in the order of `matches`, float32 [M, H, W], padded at the right and bottom.

    padded: (H, W). Every target must have masks.
    """
    height, width = padded
    masks = []
    for target in targets:
        h, w = _masks(target).shape[-2:]
        masks.append(F.pad(_masks(target), (0, width - w, 0, height - h)))
    return torch.cat(masks)[matches.target].float()


def _has_mask(target: Target) -> Tensor:
    # Returns on the host whether each object has a mask. The host waits for the GPU only if the batch does not say it.
    return _masks(target).flatten(1).any(1).cpu() if target.has_mask is None else target.has_mask


def _masks(target: Target) -> Tensor:
    assert target.masks is not None, "expected targets with masks, found a dataset that was created without masks"
    return target.masks


def mask_loss(logits: Tensor, masks: Tensor, boxes: float, config: MaskLossConfig) -> tuple[Tensor, Tensor]:
    """Returns the focal loss and the DICE loss, each summed over masks and divided by `boxes`, the divisor of the box losses.

    The divisor therefore counts all objects, also those whose annotation has only a box.
    logits [M, h, w] of matched queries are resized bilinearly to the size of masks [M, H, W] (float, 0 or 1).
    """
    logits = F.interpolate(logits.float()[:, None], size=masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    focal = sigmoid_focal_loss(logits, masks, config.alpha, config.gamma, reduction="none").mean((1, 2)).sum() / boxes
    probability = logits.sigmoid()
    overlap = 2 * (probability * masks).sum((1, 2))
    total = probability.sum((1, 2)) + masks.sum((1, 2))
    dice = (1 - (overlap + 1) / (total + 1)).sum() / boxes
    return focal, dice
