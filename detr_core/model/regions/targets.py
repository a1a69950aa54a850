"""Computes the targets of detectors that segment things and stuff: the things, and the class of every pixel."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detr_core.model.common.host_values import marked_rows
from detr_core.structures import Target

NO_CLASS = -1  # the class of pixels that no loss counts: those of crowds and of no segment


def things_of(targets: list[Target], thing: Tensor) -> list[Target]:
    """Returns the targets with their things alone, whose labels are positions among the thing classes.

    thing [C]: int64, the position of each class among the thing classes, -1 for stuff.
    """
    positions = [thing[target.labels] for target in targets]
    return [
        replace(
            target,
            labels=position[rows],
            boxes=target.boxes[rows],
            masks=None if target.masks is None else target.masks[rows],
            has_mask=None,
        )
        for target, position, rows in zip(targets, positions, marked_rows(*(each >= 0 for each in positions)), strict=True)
    ]


def class_map(target: Target) -> Tensor:
    """Returns the class index of each pixel of the image, things and stuff, int64 [H, W]; NO_CLASS where there is no segment.

    The target must have the masks of panoptic segments, which do not overlap. Crowds are not among them.
    """
    assert target.masks is not None, "expected targets with masks, found a dataset that was created without masks"
    classes = torch.full(target.size, NO_CLASS, device=target.labels.device)
    for mask, label in zip(target.masks, target.labels, strict=True):
        classes.masked_fill_(mask, label)
    return classes
