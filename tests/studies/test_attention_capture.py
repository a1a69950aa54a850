"""Attention weights that are computed after a forward pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from detr_core.model.transformer.transformer import Attention
from detr_core.structures import Category, Padding
from detr_core.studies.measurements.attention_capture import capture_attention
from tests.tiny_detector import detector

WIDTH, HEADS = 32, 4


@pytest.fixture
def attention() -> Attention:
    torch.manual_seed(0)
    attention = Attention(WIDTH, HEADS, dropout=0.0)
    torch.nn.init.normal_(attention.in_proj_weight, std=0.5)
    torch.nn.init.normal_(attention.in_proj_bias)
    torch.nn.init.normal_(attention.out_proj.bias)
    return attention.eval()


def carried(attention: Attention, weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What attention with these weights [B, heads, Q, N] makes of `value` [B, N, D]."""
    values = F.linear(value, attention.in_proj_weight[2 * WIDTH :], attention.in_proj_bias[2 * WIDTH :])
    by_head = values.view(*value.shape[:2], HEADS, -1).transpose(1, 2)
    return attention.out_proj((weights @ by_head).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("self_attention", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_captured_weights_times_the_values_equal_the_output_of_attention(
    attention: Attention, self_attention: bool, masked: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    key, value = (torch.randn(2, 9, WIDTH, generator=generator) for _ in range(2))
    query = key if self_attention else torch.randn(2, 5, WIDTH, generator=generator)
    keep = torch.ones(2, 1, 1, 9, dtype=torch.bool)
    keep[1, ..., 6:] = False
    weights = attention.weights(query, key, keep if masked else None)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, query.shape[1]))
    assert bool((weights[1, ..., 6:] == 0).all()) == masked
    expected = attention(query, key, value, keep if masked else None)
    torch.testing.assert_close(carried(attention, weights, value), expected, atol=1e-5, rtol=1e-5)


def test_a_detectors_layers_are_watched_in_their_block_alone() -> None:
    model = detector([Category(1, "thing", True)], mask_head=False).eval()
    attention = model.transformer.decoder.layers[-1].multihead_attn
    outputs: list[torch.Tensor] = []
    attention.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    images = torch.rand(2, 3, 48, 60, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(2, 48, 60, dtype=torch.bool)
    padding[1, :, 30:] = True
    with torch.inference_mode():
        with capture_attention(attention) as seen:
            output = model(images, Padding.of(padding))
        model(images.flip(0), Padding.of(padding))
        weights = seen.weights(1, torch.tensor([7, 3]))
        memory = output.memory.flatten(2).transpose(1, 2)[1:]
        assert weights.shape == (4, 2, memory.shape[1])
        assert (weights.sum((0, 1)).view(output.padding[1].shape)[output.padding[1]] == 0).all()
        given = carried(attention, weights[None], memory)[0]
    torch.testing.assert_close(given, outputs[0][1, [7, 3]], atol=1e-5, rtol=1e-5)
