"""Faster R-CNN's losses of boxes and logits that were chosen so that the losses can be computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from detr_core.model.faster_rcnn.config import RegionLossConfig
from detr_core.model.regions.detector import Samples
from detr_core.model.regions.losses import region_losses

ZOO = RegionLossConfig(objectness=1, proposals=1, classification=1, boxes=1, giou=0, beta=0)
PLUS = RegionLossConfig(objectness=1, proposals=0, proposals_giou=1, classification=1, boxes=0, giou=20)


def by_hand() -> Samples:
    """Four anchors of one image, two of them objects, and eight proposals, two of them positive. All logits are 0."""
    image = {name: torch.zeros(count, dtype=torch.int64) for name, count in (("A", 4), ("O", 2), ("R", 8), ("P", 2))}
    return Samples(
        images=1,
        anchor_image=image["A"],
        objectness=torch.zeros(4),
        is_object=torch.tensor([1.0, 1, 0, 0]),
        object_image=image["O"],
        anchor_deltas=torch.tensor([[0.0, 0, 0, 0], [0.5, 0, 0, -0.1]]),
        anchor_targets=torch.tensor([[0.0, 0, 0, 0.05], [0.0, 0, 1, 0]]),
        anchor_boxes=torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]]),
        anchor_target_boxes=torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]),
        proposal_image=image["R"],
        logits=torch.zeros(8, 4),
        labels=torch.tensor([1, 3, 0, 0, 0, 0, 0, 0]),
        positive_image=image["P"],
        deltas=torch.tensor([[0.0, 0, 0, 0], [0.0, 0, 0, 2]]),
        targets=torch.tensor([[0.1, 0, 0, 0], [0.0, -1, 0, 0]]),
        boxes=torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]]),
        target_boxes=torch.tensor([[0.0, 0, 10, 20], [5, 5, 15, 15]]),
    )


def test_giou_is_the_only_box_loss_of_the_papers_plus() -> None:
    total, parts = region_losses(by_hand(), 1, PLUS)
    # Equal boxes lose 0. Two boxes of 10 x 10 with a gap of 10 have an IoU of 0 and fill 200 of the 300 pixels around both: the
    # loss is 1 + 1/3. They count as two of four anchors.
    assert float(parts["proposals_giou"]) == pytest.approx((0 + 4 / 3) / 4)
    # Half a box loses 1/2. Two boxes that share a quarter have an IoU of 1/7 and fill 175 of 225 pixels: the loss is
    # 1 - 1/7 + 2/9. They count as two of eight proposals.
    assert float(parts["giou"]) == pytest.approx((1 / 2 + 68 / 63) / 8)
    classes = math.log(2) + math.log(4)
    assert float(total) == pytest.approx(classes + 1 * (4 / 3) / 4 + 20 * (1 / 2 + 68 / 63) / 8)
    assert float(region_losses(by_hand(), 2, PLUS)[0]) == pytest.approx(float(total) / 2), (
        "two images in a step, one of which is here"
    )


def test_the_zoos_box_losses_are_l1() -> None:
    _, parts = region_losses(by_hand(), 1, ZOO)
    assert float(parts["proposals"]) == pytest.approx((0.05 + 0.5 + 1 + 0.1) / 4)
    assert float(parts["boxes"]) == pytest.approx((0.1 + 1 + 2) / 8)
    _, smooth = region_losses(by_hand(), 1, replace(ZOO, beta=1 / 9))
    assert float(smooth["boxes"]) == pytest.approx((9 * 0.1**2 / 2 + 3 - 2 / 18) / 8)
