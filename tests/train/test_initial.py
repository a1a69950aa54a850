"""First values of learned positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_core.model.config import PositionsConfig
from detr_core.model.detr import Detr
from detr_core.structures import Category
from detr_core.train.initial import draw_positions
from tests.tiny_detector import detector

CATEGORIES = [Category(1, "circle", True)]


def test_learned_positions_get_the_spread_that_was_asked_for_and_nothing_else_changes() -> None:
    config = replace(detector(CATEGORIES, False).config, positions=PositionsConfig("learned", "attention", cells=64))
    torch.manual_seed(0)
    model = Detr(config, 1, mask_head=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw_positions(model, 2.0)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"backbone.1.row_embed.weight", "backbone.1.col_embed.weight"}
    for name in changed:
        value = model.state_dict()[name]
        assert value.std().item() == pytest.approx(2.0, rel=0.1)
        assert value.mean().item() == pytest.approx(0.0, abs=0.2)


def test_a_detector_without_learned_positions_stays_as_it_is() -> None:
    model = detector(CATEGORIES, False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    draw_positions(model, 2.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
