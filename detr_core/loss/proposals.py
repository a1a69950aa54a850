"""Computes the loss of the proposals of a two-stage detector's encoder (arXiv 2010.04159, section 4.2)."""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_core.loss.config import SetLossConfig
from detr_core.loss.criterion import Losses, Normalizer, set_loss
from detr_core.loss.matcher import Matches, match
from detr_core.structures import Proposals, Target


def proposal_loss(
    proposals: Proposals, targets: list[Target], normalizer: Normalizer, config: SetLossConfig
) -> tuple[Matches, Losses]:
    """Returns the matches of proposals with targets, and the set loss as of one decoder layer, with the same weights.

    All targets count as objects of class 0, because the encoder only says where objects are.
    """
    objects = [replace(target, labels=torch.zeros_like(target.labels)) for target in targets]
    logits, boxes = proposals.logits[None].float(), proposals.boxes[None].float()
    matches = match(logits, boxes, objects, config)
    return matches, set_loss(logits, boxes, objects, matches, normalizer, config)
