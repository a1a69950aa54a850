"""Tiny configurations of every kind of detector other than DETR, with which the tests for every kind run.

detector, loss, optimizer: as in a profile. steps: the number of optimizer steps in which the detector learns six scenes by heart.
"""

from __future__ import annotations

from typing import Any

import pytest

BACKBONE = {"name": "small", "dilation": False, "weights": None, "norm": "group", "frozen_stages": 0}
RATES = {"lr": 1e-3, "backbone_lr": 1e-3, "weight_decay": 1e-4, "clip_norm": 0.1}

DEFORMABLE: dict[str, Any] = {
    "detector": {
        "kind": "deformable",
        "backbone": BACKBONE,
        "stages": [2, 4],
        "levels": 2,
        "points": 2,
        "width": 64,
        "heads": 4,
        "feed_forward": 64,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "queries": 12,
        "dropout": 0.0,
        "pre_norm": True,
        "refine": True,
    },
    "loss": {"kind": "focal", "classification": 2, "l1": 5, "giou": 2, "alpha": 0.25, "gamma": 2, "auxiliary": True},
    "optimizer": {"kind": "adamw", "sampling_lr": 1e-3, **RATES},
    "steps": 150,
}

DEFORMABLE_TWO_STAGE: dict[str, Any] = {
    **DEFORMABLE,
    "detector": {**DEFORMABLE["detector"], "two_stage": True, "encoded_point": "center"},
}

FASTER_RCNN: dict[str, Any] = {
    "detector": {
        "kind": "faster_rcnn",
        "backbone": BACKBONE,
        "stages": [2, 4],
        "width": 32,
        "anchors": [16, 32, 64],
        "proposals": 60,
        "sampled_anchors": 48,
        "sampled_proposals": 32,
        "head_width": 64,
    },
    "loss": {"kind": "regions", "objectness": 1, "proposals": 1, "classification": 1, "boxes": 1, "giou": 1},
    "optimizer": {"kind": "adamw", "sampling_lr": None, **RATES},
    "steps": 80,
}

# Without a pyramid, on the dilated last stage, with GIoU as the only box loss and the paper's weights.
FASTER_RCNN_DC5: dict[str, Any] = {
    "detector": {
        "kind": "faster_rcnn",
        "backbone": {**BACKBONE, "dilation": True},
        "stages": [4],
        "width": None,
        "anchors": [16, 32, 64],
        "proposals": 40,
        "candidates": 80,
        "training_proposals": 60,
        "training_candidates": 120,
        "sampled_anchors": 48,
        "sampled_proposals": 32,
        "head_width": 64,
    },
    "loss": {
        "kind": "regions",
        "objectness": 1,
        "proposals": 0,
        "proposals_giou": 1,
        "classification": 1,
        "boxes": 0,
        "giou": 20,
        "beta": 0,
    },
    "optimizer": {"kind": "adamw", "sampling_lr": None, **RATES},
    "steps": 240,
}

MASK_RCNN: dict[str, Any] = {
    "detector": {**FASTER_RCNN["detector"], "kind": "mask_rcnn", "mask_width": 32},
    "loss": {**FASTER_RCNN["loss"], "kind": "regions_and_masks", "masks": 1},
    "optimizer": FASTER_RCNN["optimizer"],
    "steps": 80,
}

PANOPTIC_FPN: dict[str, Any] = {
    "detector": {**MASK_RCNN["detector"], "kind": "panoptic_fpn", "semantic_width": 32},
    "loss": {**MASK_RCNN["loss"], "kind": "panoptic_fpn", "semantic": 0.5},
    "optimizer": FASTER_RCNN["optimizer"],
    "steps": 80,
}

UPSNET: dict[str, Any] = {
    "detector": {**MASK_RCNN["detector"], "kind": "upsnet", "semantic_width": 32},
    "loss": {**MASK_RCNN["loss"], "kind": "upsnet", "semantic": 0.2, "semantic_boxes": 0.04, "panoptic": 0.1},
    "optimizer": FASTER_RCNN["optimizer"],
    "steps": 80,
}

RECIPES = {
    "deformable": DEFORMABLE,
    "deformable_two_stage": DEFORMABLE_TWO_STAGE,
    "faster_rcnn": FASTER_RCNN,
    "faster_rcnn_dc5": FASTER_RCNN_DC5,
    "mask_rcnn": MASK_RCNN,
    "panoptic_fpn": PANOPTIC_FPN,
    "upsnet": UPSNET,
}


def short_for(*kinds: str) -> list[Any]:
    """Returns all kinds as the values of a test's parameter. The test is a long one for all kinds except these.

    It is meant for slow tests, and for kinds whose parts another kind has, too.
    """
    return [pytest.param(kind, marks=() if kind in kinds else pytest.mark.long) for kind in RECIPES]
