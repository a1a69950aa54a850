"""Deformable DETR's published format: the architecture is inferred, wrong weights are named, and training starts from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.model.checkpoint import CheckpointError, load_checkpoint
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.deformable.model import DeformableDetr
from detr_core.model.deformable.published import from_published, published_state
from detr_core.structures import Category
from tests.published_deformable import DC5, TINY, TWO_STAGE, published_state_dict

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, refine=True, points=2, queries=300),
        TWO_STAGE,
        DC5,
        replace(TINY, heads=4, stages=(3, 4), levels=2, encoder_layers=2, decoder_layers=1, dropout=0.0),
    ],
    ids=["plain", "refine", "two-stage", "DC5", "other sizes"],
)
def test_the_architecture_is_inferred_and_the_weights_are_the_files(config: DeformableConfig) -> None:
    arguments = {"nheads": config.heads, "dropout": config.dropout, "dilation": config.backbone.dilation, "num_queries": 7}
    state = published_state_dict(config, classes=12)
    model, categories = from_published({"model": state, "args": arguments}, "a.pth", None)
    assert model.config == config
    assert categories == tuple(Category(index, "", True) for index in range(12))
    assert published_state(model).keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in published_state(model).items())
    assert {name for name, weight in model.named_parameters() if not weight.requires_grad} == {
        name for name, weight in DeformableDetr(config, 12).named_parameters() if not weight.requires_grad
    }


def test_a_state_dict_alone_has_eight_heads_and_300_queries_of_two_stages() -> None:
    model, categories = from_published(published_state_dict(TWO_STAGE), "a.pth", None)
    assert model.config == replace(TWO_STAGE, queries=300)
    assert (categories[1].name, categories[12].used, len(categories)) == ("person", False, 91)


def test_a_decoder_layer_attends_to_queries_with_the_second_published_norm() -> None:
    state = published_state_dict()
    state["transformer.decoder.layers.1.norm2.bias"] = torch.full((64,), 5.0)
    model, _ = from_published(state, "a.pth", None)
    assert torch.equal(model.state_dict()["decoder.1.norm1.bias"], torch.full((64,), 5.0))
    assert not model.state_dict()["decoder.1.norm2.bias"].any()


def test_a_dc5_needs_the_option_dilation_and_has_one_level(tmp_path: Path) -> None:
    name = tmp_path / "r50_deformable_detr_single_scale_dc5-checkpoint.pth"
    torch.save({"model": published_state_dict(DC5)}, name)
    with pytest.raises(CheckpointError, match=r"its name contains DC5.*--dilation"):
        load_checkpoint(name, CPU)
    assert load_checkpoint(name, CPU, dilation=True).model.config == DC5
    with pytest.raises(CheckpointError, match=r"a\.pth: .*backbone\.dilation: expected false with several levels"):
        from_published(published_state_dict(replace(TINY, backbone=replace(TINY.backbone, name="resnet50"))), "a.pth", True)


@pytest.mark.parametrize(
    ("name", "how", "expected"),
    [
        ("query_embed.weight", "missing", "missing query_embed.weight"),
        ("class_embed.1.bias", "missing", "missing class_embed.1.bias"),
        ("transformer.level_embed", "missing", "missing transformer.level_embed"),
        ("input_proj.0.0.bias", "misshapen", r"input_proj.0.0.bias: expected shape \[64\], found \[5\]"),
        ("class_embed.0.weight", "misshapen", r"class_embed.0.weight: expected shape \[91, 64\], found \[5\]"),
        ("transformer.enc_extra", "unknown", "unknown transformer.enc_extra"),
        ("input_proj.0.0.bias", "text", "input_proj.0.0.bias: expected a dense tensor of floating point numbers, found str"),
        (
            "bbox_embed.1.layers.2.bias",
            "other values",
            "bbox_embed.1.layers.2.bias: expected the values of bbox_embed.0.layers.2",
        ),
    ],
)
def test_one_wrong_weight_is_named_alone(name: str, how: str, expected: str) -> None:
    state: dict[str, Any] = published_state_dict()
    if how == "missing":
        del state[name]
    elif how == "other values":
        state[name] = state[name] + 1
    else:
        state[name] = "text" if how == "text" else torch.zeros(5)
    with pytest.raises(
        CheckpointError, match=rf"^a\.pth: (the weights are not those of a published Deformable DETR: )?{expected}"
    ) as error:
        from_published(state, "a.pth", None)
    assert ";" not in str(error.value), "no other weight is blamed"


@pytest.mark.parametrize("arguments", [{"nheads": "8"}, {"nheads": 0}, {"nheads": None}, {"num_queries": 0}, {"dropout": 2}])
def test_invalid_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"a\.pth: (not supported by this version: )?args"):
        from_published({"model": published_state_dict(TWO_STAGE), "args": arguments}, "a.pth", None)
