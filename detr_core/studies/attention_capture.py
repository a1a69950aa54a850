"""Computes the attention weights of one layer after a forward pass, because the forward pass itself does not compute them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from detr_core.model.common.transformer import Attention


class AttentionCapture:
    """The inputs of the last call of an attention layer.

    query [B, Q, D], key [B, N, D], keep [B, 1, 1, N]: the arguments of `Attention.forward`.
    """

    def __init__(self, attention: Attention) -> None:
        self.attention = attention
        self.query: Tensor = torch.empty(0)
        self.key: Tensor = torch.empty(0)
        self.keep: Tensor | None = None

    def weights(self, image: int, queries: Tensor) -> Tensor:
        """Returns the attention weights of some queries of one image, [heads, K, N], which sum to 1 over the N positions.

        image: the index of the image in the batch. queries [K]: int64 indices of the queries. In the encoder's self-attention the
        queries are the positions of the feature map, row by row.
        """
        keep = None if self.keep is None else self.keep[image, None]
        return self.attention.weights(self.query[image, queries][None], self.key[image, None], keep)[0]


@contextmanager
def capture_attention(attention: Attention) -> Iterator[AttentionCapture]:
    """Stores the inputs of `attention` in the forward passes of this block, and yields the object that holds them."""
    capture = AttentionCapture(attention)

    def remember(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        capture.query, capture.key, _, capture.keep = inputs

    hook = attention.register_forward_pre_hook(remember)
    try:
        yield capture
    finally:
        hook.remove()
