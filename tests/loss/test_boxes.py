"""GIoU: literal cases, and equality with torchvision on random boxes."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_convert, generalized_box_iou

from detr_core.loss.boxes import generalized_iou


@pytest.mark.parametrize(
    ("a", "b", "giou"),
    [
        ([0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0], 1.0),
        ([0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0], 0.0),  # side by side: no overlap, nothing wasted
        ([0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5], 0.25),
        ([0.1, 0.1, 0.2, 0.2], [0.9, 0.9, 0.2, 0.2], 0.08 - 1),  # the hull is 1, the union 0.08
        ([0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], 0.0),  # points: no area, no NaN
    ],
)
def test_generalized_iou_has_the_literal_values(a: list[float], b: list[float], giou: float) -> None:
    assert generalized_iou(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(giou, abs=1e-6)


def test_generalized_iou_equals_torchvisions_pair_by_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(7, 4, generator=generator) + 0.01, torch.rand(5, 4, generator=generator) + 0.01
    expected = generalized_box_iou(box_convert(a, "cxcywh", "xyxy"), box_convert(b, "cxcywh", "xyxy"))
    torch.testing.assert_close(generalized_iou(a[:, None], b[None]), expected)
