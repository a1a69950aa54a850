"""DETR as a whole: shapes, the effect of padding, configurations, and the mask head on some of the queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torchvision.models.resnet import BasicBlock

from detr_core.config import ConfigError
from detr_core.model.common.backbone import Backbone
from detr_core.model.common.config import BackboneConfig
from detr_core.model.common.normalisation import normalise
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.mask_head import MaskHead
from detr_core.model.detr.model import Detr
from detr_core.model.transformer.config import PositionsConfig
from detr_core.model.transformer.position import LearnedPositions
from detr_core.structures import Padding
from tests.model.batches import images, require_same_output_alone_and_in_a_batch
from tests.model.gradients import weights_without_gradient
from tests.model.small_detr import SMALL, detector


def positions(**changes: Any) -> PositionsConfig:
    """Returns the positions of SMALL with these changes."""
    return replace(SMALL.positions, **changes)


VARIANTS = {
    "published": SMALL,
    "pre-norm": replace(SMALL, pre_norm=True),
    "no encoder": replace(SMALL, encoder_layers=0),
    "twelve layers": replace(SMALL, encoder_layers=12),
    "no feed-forward": replace(SMALL, feed_forward=0),
    "a head a layer": replace(SMALL, shared_heads=False),
    "learned positions": replace(SMALL, positions=positions(kind="learned", cells=3)),
    "learned positions at the input, pre-norm": replace(
        SMALL, positions=positions(kind="learned", where="input", cells=3), pre_norm=True
    ),
    "learned positions in the decoder": replace(SMALL, positions=positions(kind="learned", where="decoder", cells=3)),
    "positions at the input": replace(SMALL, positions=positions(where="input")),
    "positions in the decoder": replace(SMALL, positions=positions(where="decoder")),
    "object queries at the input": replace(SMALL, positions=positions(queries="input")),
    "positions at the input, scaled": replace(SMALL, positions=positions(where="input", queries="input", factor=0.1)),
    "no positions": replace(SMALL, positions=positions(kind="none")),
    "resnet18": replace(SMALL, backbone=BackboneConfig("resnet18", False, None, "frozen", 2)),
    "dilated": replace(SMALL, backbone=BackboneConfig("resnet50", True, None, "group", 0)),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_runs_and_every_weight_gets_a_gradient(config: DetrConfig) -> None:
    model = detector(config).train()
    output = model(*images())
    assert output.logits.shape == (2, 2, 5, 4)
    assert output.boxes.shape == (2, 2, 5, 4)
    assert ((output.boxes >= 0) & (output.boxes <= 1)).all()
    assert weights_without_gradient(model, output.logits.square().sum() + output.boxes.sum()) == []


def test_a_dilated_backbone_is_twice_as_fine() -> None:
    coarse = detector(replace(SMALL, backbone=BackboneConfig("resnet50", False, None, "group", 0)))
    fine = detector(VARIANTS["dilated"])
    x, padding = images(1, 64, 96)
    with torch.inference_mode():
        assert coarse(x, padding).memory.shape[-2:] == (2, 3)
        assert fine(x, padding).memory.shape[-2:] == (4, 6)


@pytest.mark.parametrize(
    ("name", "dilation", "cells"), [("small", False, (8, 8)), ("small", True, (16, 16)), ("small_deep", False, (8, 8))]
)
def test_the_small_backbones_have_the_configured_blocks_and_map_sizes(
    name: Literal["small", "small_deep"], dilation: bool, cells: tuple[int, int]
) -> None:
    backbone = Backbone(BackboneConfig(name, dilation, None, "group", 0)).eval()
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, 96, 96))
    assert maps[0].shape[-2:] == (32, 32)
    assert maps[3].shape == (1, 96, *cells)
    assert sum(isinstance(module, BasicBlock) for module in backbone.modules()) == (8 if name == "small_deep" else 4)


@torch.inference_mode()
def test_attention_never_looks_at_padding() -> None:
    model = detector()
    source, position = torch.randn(1, 32, 4, 6), torch.randn(1, 32, 4, 6)
    padding = torch.zeros(1, 4, 6, dtype=torch.bool)
    padding[..., 4:] = True
    changed = source.clone()
    changed[..., 4:] += 10
    queries = model.query_embed.weight
    first, _ = model.transformer(source, padding, position, queries)
    second, _ = model.transformer(changed, padding, position, queries)
    torch.testing.assert_close(first, second)


@torch.inference_mode()
def test_positions_and_object_queries_enter_at_the_input_if_configured() -> None:
    """With both at the input, the encoder gets the features plus the factor times the positions, and the decoder the queries."""
    model = detector(replace(SMALL, encoder_layers=0, positions=positions(where="input", queries="input", factor=0.5)))
    source, encodings = torch.randn(2, 32, 4, 6), torch.randn(2, 32, 4, 6)
    decoded, memory = model.transformer(source, None, encodings, model.query_embed.weight)
    torch.testing.assert_close(memory, source + 0.5 * encodings)
    tokens = memory.flatten(2).transpose(1, 2)
    x = model.query_embed.weight.expand(2, -1, -1)
    for layer, expected in zip(model.transformer.decoder.layers, decoded, strict=True):
        x = layer.norm1(x + layer.self_attn(x, x, x, None))
        x = layer.norm2(x + layer.multihead_attn(x, tokens, tokens, None))
        x = layer.norm3(x + layer.feed_forward(x))
        torch.testing.assert_close(model.transformer.decoder.norm(x), expected)


def test_a_factor_without_positions_at_the_input_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"factor: expected 1, because no encodings are added at the input, found 0\.1"):
        positions(factor=0.1)


@torch.inference_mode()
def test_metrics_do_not_depend_on_the_batch() -> None:
    require_same_output_alone_and_in_a_batch(detector(mask_head=True))


@torch.inference_mode()
def test_masks_of_chosen_queries_are_those_of_all() -> None:
    model = detector(mask_head=True)
    output = model(*images())
    image, query = torch.arange(2).repeat_interleave(5), torch.arange(5).repeat(2)
    everything = model.masks(output, image, query)
    assert everything.shape == (10, 16, 20)
    chosen = model.masks(output, torch.tensor([1, 0, 1]), torch.tensor([4, 2, 0]))
    torch.testing.assert_close(chosen, everything[[9, 2, 5]], rtol=1e-4, atol=1e-5)
    assert model.masks(output, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)).shape == (0, 16, 20)


@torch.inference_mode()
def test_the_softmax_of_attention_maps_is_as_published_or_of_each_head() -> None:
    x, padding = images()
    padding.mask[0, :, 24:] = True
    sums = {}
    for softmax in ("published", "per_head"):
        torch.manual_seed(0)
        model = Detr(SMALL, 3, True, softmax).eval()
        output = model(x, Padding.of(padding.mask))
        assert output.padding.any()
        maps = model.bbox_attention(output.queries, output.memory, output.padding, torch.tensor([0, 1]), torch.tensor([4, 2]))
        assert maps.shape == (2, 4, *output.padding.shape[1:])
        assert (maps.masked_select(output.padding[:, None]) == 0).all(), "nothing falls on padding"
        assert (maps.masked_select(~output.padding[:, None]) > 0).all()
        sums[softmax] = maps.sum((2, 3))
    torch.testing.assert_close(sums["per_head"], torch.ones(2, 4))
    torch.testing.assert_close(sums["published"].sum(1), torch.ones(2))


@torch.inference_mode()
def test_without_attention_maps_the_query_says_the_same_everywhere() -> None:
    torch.manual_seed(0)
    model = Detr(SMALL, 3, True, "none").eval()
    output = model(*images())
    image, query = torch.tensor([0, 1]), torch.tensor([4, 2])
    maps = model.bbox_attention(output.queries, output.memory, output.padding, image, query)
    assert maps.shape == (2, 4, *output.padding.shape[1:])
    assert torch.equal(maps, maps[:, :, :1, :1].expand_as(maps))
    assert not torch.equal(maps[0], maps[1])


def test_normalised_images_are_zero_on_padding() -> None:
    x = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    padding = torch.tensor([[[False, True], [False, True]]])
    out = normalise(x, Padding.of(padding))
    assert (out[..., 1] == 0).all()
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]))


def test_learned_positions_are_interpolated_to_larger_maps() -> None:
    module = LearnedPositions(cells=4, features=8)
    small, exact, large = (module(torch.zeros(1, size, size, dtype=torch.bool)) for size in (3, 4, 9))
    torch.testing.assert_close(exact[..., :3, :3], small)
    assert large.shape == (1, 16, 9, 9)
    torch.testing.assert_close(large[..., 0, 0], exact[..., 0, 0])
    torch.testing.assert_close(large[..., -1, -1], exact[..., -1, -1])


def test_frozen_stages_do_not_learn() -> None:
    model = detector(VARIANTS["resnet18"])
    body = model.backbone[0].body
    frozen = {name.split(".")[0] for name, weight in body.named_parameters() if not weight.requires_grad}
    trained = {name.split(".")[0] for name, weight in body.named_parameters() if weight.requires_grad}
    assert frozen == {"conv1", "layer1"}  # frozen batch norm has no parameters
    assert trained == {"layer2", "layer3", "layer4"}


def test_gradients_of_the_mask_head_are_the_same_bit_for_bit_on_several_threads() -> None:
    torch.manual_seed(0)
    head = MaskHead(32, 4, [16, 16, 16])
    maps, image = torch.randn(24, 4, 4, 4), torch.zeros(24, dtype=torch.long)  # queries that share an image
    pyramid = (torch.randn(1, 16, 8, 8), torch.randn(1, 16, 16, 16), torch.randn(1, 16, 32, 32))
    projected = torch.randn(1, 32, 4, 4)

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(head(projected, maps, pyramid, image).square().mean(), list(head.parameters())))

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = gradients()
        repetitions = [gradients() for _ in range(20)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for repetition in repetitions for a, b in zip(first, repetition, strict=True))
