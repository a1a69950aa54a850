"""Attention weights of one layer, computed afterwards and only where somebody asks: inference itself never has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from detr_core.model.transformer import Attention


class Watched:
    """The inputs of an attention's last call.

    query [B, Q, D], key [B, N, D], keep [B, 1, 1, N]: as `Attention.forward` takes them.
    """

    def __init__(self, attention: Attention) -> None:
        self.attention = attention
        self.query: Tensor = torch.empty(0)
        self.key: Tensor = torch.empty(0)
        self.keep: Tensor | None = None

    def weights(self, image: int, queries: Tensor) -> Tensor:
        """How much each head of chosen queries of one image of the batch attended to each position: [heads, K, N], 1 over N.

        queries [K]: int64. For the encoder's self-attention a query is a position of the feature map, row by row.
        """
        keep = None if self.keep is None else self.keep[image, None]
        return self.attention.weights(self.query[image, queries][None], self.key[image, None], keep)[0]


@contextmanager
def watched(attention: Attention) -> Iterator[Watched]:
    """Remembers what goes into `attention` in the forward passes of this block."""
    seen = Watched(attention)

    def remember(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen.query, seen.key, _, seen.keep = inputs

    hook = attention.register_forward_pre_hook(remember)
    try:
        yield seen
    finally:
        hook.remove()
