"""The first stage of a two-stage Deformable DETR: its anchors, and the proposals that become queries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_core.model.deformable.two_stage import anchor_boxes
from detr_core.structures import Padding, Proposals
from tests.model.batches import images
from tests.model.test_deformable import SMALL, detector


def test_an_anchor_stands_at_the_centre_of_each_cell_and_doubles_from_level_to_level() -> None:
    padding = torch.tensor([[False, False, True, False, False, True, True, True, True, False, True]])
    anchors, usable = anchor_boxes([(3, 3), (1, 2)], torch.tensor([[[2 / 3, 2 / 3], [1 / 2, 1]]]), padding)
    torch.testing.assert_close(anchors[0, :2], torch.tensor([[0.25, 0.25, 0.05, 0.05], [0.75, 0.25, 0.05, 0.05]]))
    torch.testing.assert_close(anchors[0, 4], torch.tensor([0.75, 0.75, 0.05, 0.05]))
    torch.testing.assert_close(anchors[0, 9], torch.tensor([0.5, 0.5, 0.1, 0.1]))
    assert usable.tolist() == [[True, True, False, True, True, False, False, False, False, True, False]]


@pytest.mark.parametrize("columns", [50, 64])
def test_an_anchor_a_hundredth_from_the_border_is_not_usable_with_and_without_padding(columns: int) -> None:
    padding = torch.arange(columns)[None] >= 50  # the image has 50 columns: the outer centres are at 0.01 and 0.99
    _, usable = anchor_boxes([(1, columns)], torch.tensor([[[50 / columns, 1.0]]]), padding)
    assert usable[0].nonzero()[:, 0].tolist() == list(range(1, 49))


@torch.inference_mode()
def test_the_best_proposals_become_the_queries() -> None:
    model = detector(replace(SMALL, refine=True, two_stage=True))
    logits, boxes = torch.randn(2, 30, 3), torch.rand(2, 30, 4)
    content, position, chosen = model.proposals.best(Proposals(logits, boxes), count=5)
    for image in range(2):
        order = logits[image, :, 0].argsort(descending=True)
        assert torch.equal(chosen[image], boxes[image, order[:5]])
    assert content.shape == position.shape == (2, 5, 64)
    output = model(*images())
    assert output.logits.shape == (2, 2, 5, 3)


@torch.inference_mode()
def test_an_image_with_fewer_positions_than_queries_gives_a_query_for_each() -> None:
    model = detector(replace(SMALL, stages=(4,), levels=1, refine=True, two_stage=True, queries=50))
    output = model(torch.randn(1, 3, 48, 24), Padding.none(1, (48, 24), torch.device("cpu")))
    assert output.boxes.shape == (2, 1, 8, 4)
    assert output.boxes.isfinite().all()
