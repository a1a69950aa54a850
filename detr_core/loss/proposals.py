"""Computes the loss of the proposals of a two-stage detector's encoder (arXiv 2010.04159, section 4.2)."""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_core.loss.config import SetLossConfig
from detr_core.loss.criterion import Losses, Normalizer, set_loss
from detr_core.loss.matcher import Matches, Predictions
from detr_core.structures import Proposals, Target


def proposal_predictions(proposals: Proposals, targets: list[Target]) -> Predictions:
    """Returns the proposals as the predictions of one decoder layer.

    All targets count as objects of class 0, because the encoder only says where objects are.
    """
    objects = [replace(target, labels=torch.zeros_like(target.labels)) for target in targets]
    return Predictions(proposals.logits[None].float(), proposals.boxes[None].float(), objects)


def proposal_loss(predictions: Predictions, matches: Matches, normalizer: Normalizer, config: SetLossConfig) -> Losses:
    """Returns the set loss of proposals as of one decoder layer, with the same weights.

    predictions: the result of `proposal_predictions`. matches: their matches with the targets.
    """
    return set_loss(predictions.logits, predictions.boxes, predictions.targets, matches, normalizer, config)
