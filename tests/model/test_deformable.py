"""Deformable DETR: its attention compared with the definition point by point, the effect of padding, shapes, and learning."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from detr_core.model.common.config import BackboneConfig
from detr_core.model.deformable.attention import DeformableAttention, Sizes, sampled_sum
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.deformable.model import DeformableDetr, Levels, _centers, _valid_share
from detr_core.structures import Padding
from tests.model.batches import images, require_same_output_alone_and_in_a_batch
from tests.model.gradients import weights_without_gradient

SMALL = DeformableConfig(
    backbone=BackboneConfig("small", dilation=False, weights=None, norm="group", frozen_stages=0),
    stages=(2, 4),
    levels=3,
    points=2,
    width=64,
    heads=4,
    feed_forward=32,
    encoder_layers=1,
    decoder_layers=2,
    queries=5,
    dropout=0.0,
    pre_norm=False,
    refine=False,
)


def detector(config: DeformableConfig = SMALL) -> DeformableDetr:
    torch.manual_seed(0)
    return DeformableDetr(config, num_classes=3).eval()


def bilinear(level: Tensor, x: float, y: float) -> Tensor:
    """Returns the value of level [h, w, d] at column x, row y; cell (i, j) has its centre at (j + 0.5, i + 0.5); zero outside."""
    height, width, d = level.shape
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    total = torch.zeros(d, dtype=level.dtype)
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                share = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
                total += share * level[row, column]
    return total


def by_definition(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    images, queries, heads, levels, points = weights.shape
    out = torch.zeros(images, queries, heads, value.shape[-1], dtype=value.dtype)
    for b in range(images):
        for q in range(queries):
            for m in range(heads):
                start = 0
                for level in range(levels):
                    height, width = sizes[level]
                    plane = value[b, start : start + height * width, m].view(height, width, -1)
                    start += height * width
                    for p in range(points):
                        x, y = locations[b, q, m, level, p].tolist()
                        out[b, q, m] += weights[b, q, m, level, p] * bilinear(plane, x * width, y * height)
    return out.flatten(2)


def sampling(sizes: Sizes, images: int, queries: int, heads: int, points: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    positions = sum(h * w for h, w in sizes)
    value = torch.randn(images, positions, heads, d, generator=generator, dtype=torch.float64)
    # Some of the points lie outside of the image.
    shape = (images, queries, heads, len(sizes), points)
    locations = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    return value, locations, torch.rand(shape, generator=generator, dtype=torch.float64)


def test_sampling_equals_its_definition() -> None:
    sizes = [(3, 5), (2, 2), (1, 1)]
    value, locations, weights = sampling(sizes, images=2, queries=4, heads=2, points=3, d=3)
    actual = sampled_sum(value, sizes, locations, weights)
    torch.testing.assert_close(actual, by_definition(value, sizes, locations, weights), rtol=1e-12, atol=1e-12)


def test_gradients_of_sampling_equal_numerical_ones() -> None:
    sizes = [(3, 4), (2, 2)]
    inputs = [tensor.requires_grad_() for tensor in sampling(sizes, images=1, queries=2, heads=2, points=2, d=2)]
    value, locations, weights = inputs
    assert torch.autograd.gradcheck(lambda v, x, w: sampled_sum(v, sizes, x, w), (value, locations, weights))


def test_attention_equals_its_definition() -> None:
    sizes = [(4, 6), (2, 3)]
    attention = DeformableAttention(width=16, heads=2, levels=2, points=3).double()
    generator = torch.Generator().manual_seed(4)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    memory = torch.randn(2, 30, 16, generator=generator, dtype=torch.float64)
    query = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    padding = torch.rand(2, 30, generator=generator) < 0.2
    for coordinates in (2, 4):
        reference = torch.rand(2, 5, 2, coordinates, generator=generator, dtype=torch.float64)
        actual = attention(query, reference, memory, sizes, padding)
        offsets = attention.sampling_offsets(query).view(2, 5, 2, 2, 3, 2)
        weights = attention.attention_weights(query).view(2, 5, 2, 6).softmax(-1).view(2, 5, 2, 2, 3)
        locations = torch.empty_like(offsets)
        for level, (height, width) in enumerate(sizes):
            for axis, cells in ((0, width), (1, height)):
                for p in range(3):
                    moved = offsets[:, :, :, level, p, axis]
                    unit = 1 / cells if coordinates == 2 else reference[:, :, None, level, 2 + axis] / 2 / 3
                    locations[:, :, :, level, p, axis] = reference[:, :, None, level, axis] + moved * unit
        value = attention.value_proj(memory)
        value[padding] = 0
        expected = attention.output_proj(by_definition(value.view(2, 30, 2, 8), sizes, locations, weights))
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_without_offsets_a_cell_sees_itself() -> None:
    attention = DeformableAttention(width=8, heads=2, levels=1, points=4)
    with torch.no_grad():
        attention.sampling_offsets.bias.zero_()
    memory = torch.randn(1, 12, 8)
    centers = _centers((3, 4), torch.device("cpu"))[None, :, None]
    actual = attention(memory, centers, memory, [(3, 4)], None)
    torch.testing.assert_close(actual, attention.output_proj(attention.value_proj(memory)))


def test_at_first_the_heads_look_around() -> None:
    offsets = DeformableAttention(width=8, heads=4, levels=2, points=2).sampling_offsets.bias.view(4, 2, 2, 2)
    right, down, left, up = offsets[:, 1].detach()
    torch.testing.assert_close(right, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    torch.testing.assert_close(down, torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
    torch.testing.assert_close(torch.cat([left, up]), -torch.cat([right, down]))


VARIANTS = {
    "published": SMALL,
    "refined": replace(SMALL, refine=True),
    "pre-norm": replace(SMALL, pre_norm=True, refine=True),
    "one level": replace(SMALL, stages=(4,), levels=1),
    "every stage": replace(SMALL, stages=(1, 2, 3, 4), levels=4),
    "two extra levels": replace(SMALL, levels=4),
    "no encoder, no feed-forward": replace(SMALL, encoder_layers=0, feed_forward=0),
    "centres": replace(SMALL, encoded_point="center"),
    "DC5": replace(SMALL, backbone=replace(SMALL.backbone, dilation=True), stages=(4,), levels=1),
    "two-stage": replace(SMALL, refine=True, two_stage=True),
    "two-stage, one level": replace(SMALL, stages=(4,), levels=1, pre_norm=True, refine=True, two_stage=True),
    "resnet18": replace(SMALL, backbone=BackboneConfig("resnet18", False, None, "frozen", 2), stages=(2, 3, 4), levels=4),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_runs_and_every_weight_gets_a_gradient(config: DeformableConfig) -> None:
    model = detector(config).train()
    with torch.no_grad():
        for boxes in model.bbox_embed:  # zeros at first, which would hide what is behind them
            torch.nn.init.normal_(boxes.layers[-1].weight)  # type: ignore[operator, union-attr, index]
    output = model(*images(height=96, width=120))
    assert output.logits.shape == (2, 2, 5, 3)
    assert output.boxes.shape == (2, 2, 5, 4)
    assert ((output.boxes >= 0) & (output.boxes <= 1)).all()
    loss = output.logits.square().sum() + output.boxes.sum()
    assert (output.proposals is not None) == config.two_stage
    if output.proposals is not None:  # the encoder's heads have a loss of their own
        loss = loss + output.proposals.logits.square().sum() + output.proposals.boxes.sum()
    assert weights_without_gradient(model, loss) == []
    assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)


def test_levels_halve_from_the_last_stage_on() -> None:
    config = replace(SMALL, backbone=BackboneConfig("resnet18", False, None, "frozen", 2), stages=(2, 3, 4), levels=4)
    levels = detector(config)._levels(torch.randn(1, 3, 128, 192), Padding.none(1, (128, 192), torch.device("cpu")))
    assert levels.sizes == [(16, 24), (8, 12), (4, 6), (2, 3)], "strides 8, 16, 32 and 64"
    assert levels.tokens.shape == (1, 16 * 24 + 8 * 12 + 4 * 6 + 2 * 3, 64)


def test_at_first_everything_is_unlikely_and_boxes_sit_at_their_references() -> None:
    model = detector()
    output = model(*images())
    position, _ = model.query_embed.weight.chunk(2, dim=1)
    torch.testing.assert_close(output.boxes[-1, 0, :, :2], model.reference_points(position).sigmoid())
    torch.testing.assert_close(output.boxes[..., 2:], torch.full_like(output.boxes[..., 2:], 1 / (1 + math.exp(2))))
    assert output.logits.sigmoid().mean() < 0.05


def through_the_transformer(model: DeformableDetr, maps: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the logits and boxes of projected maps, whatever their padding contains."""
    sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
    valid = torch.stack([_valid_share(mask) for mask in masks], 1)
    encodings = [model.positions(mask) + model.level_embed[i, :, None, None] for i, mask in enumerate(masks)]
    tokens, positions = (torch.cat([x.flatten(2).mT for x in parts], 1) for parts in (maps, encodings))
    centers = torch.cat([_centers(size, valid.device) / valid[:, i, None] for i, size in enumerate(sizes)], 1)
    outside = torch.cat([mask.flatten(1) for mask in masks], 1)
    levels = Levels(tokens, positions, sizes, outside, valid, centers)
    model._levels = lambda images, padding: levels  # type: ignore[method-assign]
    output = model(torch.zeros(len(tokens), 3, 1, 1), Padding.none(len(tokens), (1, 1), torch.device("cpu")))
    return output.logits, output.boxes


@pytest.mark.parametrize(("refine", "two_stage"), [(False, False), (True, False), (True, True)])
@torch.inference_mode()
def test_padding_changes_nothing(refine: bool, two_stage: bool) -> None:
    model = detector(replace(SMALL, encoder_layers=2, refine=refine, two_stage=two_stage))
    for module in model.modules():  # attention that has left its starting point
        if isinstance(module, DeformableAttention):
            torch.nn.init.normal_(module.sampling_offsets.weight, std=0.3)
            torch.nn.init.normal_(module.attention_weights.weight, std=0.3)
    for boxes in model.bbox_embed:
        torch.nn.init.normal_(boxes.layers[-1].weight, std=0.1)  # type: ignore[operator, union-attr, index]
    maps = [torch.randn(1, 64, h, w) for h, w in ((8, 6), (4, 4), (2, 2))]
    padded = [torch.nn.functional.pad(x, (0, 3, 0, 5), value=7.0) for x in maps]
    masks = [torch.zeros(1, *x.shape[-2:], dtype=torch.bool) for x in maps]
    padded_masks = [torch.nn.functional.pad(mask, (0, 3, 0, 5), value=True) for mask in masks]
    logits, boxes = through_the_transformer(model, maps, masks)
    padded_logits, padded_boxes = through_the_transformer(model, padded, padded_masks)
    torch.testing.assert_close(padded_logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(padded_boxes, boxes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("two_stage", [False, True])
@torch.inference_mode()
def test_metrics_do_not_depend_on_the_batch(two_stage: bool) -> None:
    require_same_output_alone_and_in_a_batch(detector(replace(SMALL, refine=True, two_stage=two_stage)))


def test_the_encoded_point_is_the_end_or_the_centre_of_a_cell() -> None:
    padding = torch.tensor([[[False, False, False, True]]])
    for point, expected in (("end", [1 / 3, 2 / 3, 1]), ("center", [1 / 6, 3 / 6, 5 / 6])):
        model = detector(replace(SMALL, encoded_point=point))  # type: ignore[arg-type]
        first_sine_of_x = model.positions(padding)[0, 32, 0, :3]
        torch.testing.assert_close(first_sine_of_x, (2 * math.pi * torch.tensor(expected)).sin(), rtol=1e-5, atol=1e-5)
