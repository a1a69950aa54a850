"""Initial values of learned positions, and the weights of a trained mask head."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from detr_core.config import ConfigError
from detr_core.model.detr.config import AttentionMaps
from detr_core.model.detr.model import Detr
from detr_core.model.transformer.config import PositionsConfig
from detr_core.structures import Category
from detr_core.train.initial import draw_positions
from detr_core.train_mask_head.initial import mask_head_from
from tests.tiny_detector import detector

CATEGORIES = [Category(1, "circle", True)]


def test_learned_positions_get_the_spread_that_was_asked_for_and_nothing_else_changes() -> None:
    config = replace(
        detector(CATEGORIES, False).config,
        positions=PositionsConfig("learned", "attention", cells=64, queries="attention", factor=1),
    )
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


def with_mask_head(classes: int, seed: int = 1, heads: int = 4, maps: AttentionMaps = "published") -> Detr:
    torch.manual_seed(seed)
    return Detr(replace(detector(CATEGORIES, False).config, heads=heads), classes, mask_head=True, attention_maps=maps)


def test_a_mask_head_is_taken_from_a_detector_of_other_classes() -> None:
    model, other = with_mask_head(3), with_mask_head(250, seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert mask_head_from(model, other) == "all 32 weights of the mask head come from the checkpoint"
    for name, value in model.state_dict().items():
        of_head = name.startswith(("bbox_attention.", "mask_head."))
        assert torch.equal(value, other.state_dict()[name] if of_head else before[name]), name


def test_a_checkpoint_without_a_mask_head_is_refused_with_every_weight_that_is_missing() -> None:
    model = with_mask_head(3)
    with pytest.raises(ConfigError) as error:
        mask_head_from(model, detector(CATEGORIES, mask_head=False))
    missing = [name for name in model.state_dict() if name.startswith(("bbox_attention.", "mask_head."))]
    expected = "train_panoptic.init: expected a checkpoint with a mask head, found no weight of "
    assert str(error.value) == expected + ", ".join(missing)


def test_every_misshapen_weight_of_a_mask_head_is_named_and_none_is_taken() -> None:
    model, other = with_mask_head(3), with_mask_head(3, seed=2, heads=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError) as error:
        mask_head_from(model, other)
    assert str(error.value) == (
        "train_panoptic.init: the mask head does not fit this detector: "
        "mask_head.lay1.weight: expected shape [36, 36, 3, 3] for this detector, found [34, 34, 3, 3]; "
        "mask_head.lay1.bias: expected shape [36] for this detector, found [34]; "
        "mask_head.gn1.weight: expected shape [36] for this detector, found [34]; "
        "mask_head.gn1.bias: expected shape [36] for this detector, found [34]; "
        "mask_head.lay2.weight: expected shape [16, 36, 3, 3] for this detector, found [16, 34, 3, 3]"
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_attention_maps_of_another_kind_are_refused() -> None:
    expected = "train_panoptic.attention_maps: expected 'per_head', the value of the checkpoint of init, found 'published'"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        mask_head_from(with_mask_head(3), with_mask_head(3, maps="per_head"))
