"""Defines the transformer (paper, sections 3.2 and A.3, Figure 10). Attention adds positions to queries and keys, not to values.

In shapes, N = H * W is the number of positions of the feature map. Names of modules and weights are those of the published
checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from detr_core.model.detr.config import DetrConfig
    from detr_core.model.transformer.config import LayerConfig


class Transformer(nn.Module):
    """The encoder and the decoder."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.positions = config.positions
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, source: Tensor, padding: Tensor | None, positions: Tensor, object_queries: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the decoder's normalised output of every layer [L, B, Q, D] and the encoder's output [B, D, H, W].

        source [B, D, H, W]: the projected feature map. padding [B, H, W]: True on padding; None without padding.
        positions [B, D, H, W]: the positional encodings. object_queries [Q, D]: the learned embeddings of the queries.
        """
        tokens = source.flatten(2).transpose(1, 2)
        places = positions.flatten(2).transpose(1, 2)
        position: Tensor | None = places
        if self.positions.where == "input":
            tokens, position = tokens + self.positions.factor * places, None
        # Without padding, which is the case in evaluation, attention has no mask and is faster.
        keep = ~padding.flatten(1)[:, None, None, :] if padding is not None else None
        memory = self.encoder(tokens, position if self.positions.where == "attention" else None, keep)
        decoded = self.decoder(memory, position, object_queries, keep)
        return decoded, memory.transpose(1, 2).reshape(*source.shape)


class Encoder(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        # As published, only a pre-norm encoder ends with a LayerNorm.
        self.norm = nn.LayerNorm(config.width) if config.pre_norm else None

    def forward(self, tokens: Tensor, position: Tensor | None, keep: Tensor | None) -> Tensor:
        """Returns the memory [B, N, D] for tokens, position [B, N, D]. keep [B, 1, 1, N]: True where attention is allowed."""
        for layer in self.layers:
            tokens = layer(tokens, position, keep)
        return tokens if self.norm is None else cast(Tensor, self.norm(tokens))


class Decoder(nn.Module):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.width)
        self.queries_at_input = config.positions.queries == "input"

    def forward(self, memory: Tensor, position: Tensor | None, object_queries: Tensor, keep: Tensor | None) -> Tensor:
        """Returns the outputs of all layers [L, B, Q, D] for memory [B, N, D] and object_queries [Q, D].

        The input of the first layer is zeros, and the object queries are added in every attention; or they are that input.
        """
        queries = object_queries.expand(len(memory), -1, -1)
        x, query_position = (queries, None) if self.queries_at_input else (torch.zeros_like(queries), queries)
        keys = _with(memory, position)
        outputs = []
        for layer in self.layers:
            x = layer(x, query_position, memory, keys, keep)
            outputs.append(x)
        return cast(Tensor, self.norm(torch.stack(outputs)))


class Layer(nn.Module):
    """The common part of encoder and decoder layers: residual sublayers with pre-norm or post-norm, and the feed-forward net."""

    def __init__(self, config: LayerConfig, self_attn: nn.Module) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.self_attn = self_attn
        self.norm1 = nn.LayerNorm(config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.has_feed_forward = config.feed_forward > 0
        if self.has_feed_forward:
            self.linear1 = nn.Linear(config.width, config.feed_forward)
            self.linear2 = nn.Linear(config.feed_forward, config.width)

    def residual(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + cast(Tensor, self.dropout(sublayer(norm(x))))
        return cast(Tensor, norm(x + self.dropout(sublayer(x))))

    def feed_forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear2(self.dropout(F.relu(self.linear1(x)))))


class EncoderLayer(Layer):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config, Attention(config.width, config.heads, config.dropout))
        if not self.has_feed_forward:
            del self.norm2

    def forward(self, x: Tensor, position: Tensor | None, keep: Tensor | None) -> Tensor:
        def attend(y: Tensor) -> Tensor:
            with_position = _with(y, position)
            return cast(Tensor, self.self_attn(with_position, with_position, y, keep))

        x = self.residual(x, self.norm1, attend)
        return self.residual(x, self.norm2, self.feed_forward) if self.has_feed_forward else x


class DecoderLayer(Layer):
    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config, Attention(config.width, config.heads, config.dropout))
        self.multihead_attn = Attention(config.width, config.heads, config.dropout)
        if self.has_feed_forward:
            self.norm3 = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, query_position: Tensor | None, memory: Tensor, keys: Tensor, keep: Tensor | None) -> Tensor:
        """Returns the layer's output [B, Q, D] for its input x [B, Q, D].

        query_position [B, Q, D]: what is added to the queries and keys, None for nothing. memory [B, N, D]: the
        values. keys: memory plus positions. keep [B, 1, 1, N]: True where attention is allowed.
        """

        def attend_to_queries(y: Tensor) -> Tensor:
            with_position = _with(y, query_position)
            return cast(Tensor, self.self_attn(with_position, with_position, y, None))

        def attend_to_memory(y: Tensor) -> Tensor:
            return cast(Tensor, self.multihead_attn(_with(y, query_position), keys, memory, keep))

        x = self.residual(x, self.norm1, attend_to_queries)
        x = self.residual(x, self.norm2, attend_to_memory)
        return self.residual(x, self.norm3, self.feed_forward) if self.has_feed_forward else x


class Attention(nn.Module):
    """Multi-head attention with the parameters of `nn.MultiheadAttention`, computed without storing attention weights."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.width, self.heads, self.dropout = width, heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        """Returns [B, Q, D] for query [B, Q, D]; key, value [B, N, D]; keep [B, 1, 1, N], True where attention is allowed."""
        q, k = self._queries_and_keys(query, key)
        in_v, bias_v = self.in_proj_weight[2 * self.width :], self.in_proj_bias[2 * self.width :]
        v = F.linear(value, in_v, bias_v)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v), attn_mask=keep, dropout_p=dropout)
        return cast(Tensor, self.out_proj(x.transpose(1, 2).flatten(2)))

    def weights(self, query: Tensor, key: Tensor, keep: Tensor | None) -> Tensor:
        """Returns the attention weights [B, heads, Q, N], which sum to 1 over N. `forward` does not compute them."""
        q, k = (self._split(x) for x in self._queries_and_keys(query, key))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        return (scores if keep is None else scores.masked_fill(~keep, float("-inf"))).softmax(-1)

    def _queries_and_keys(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        d = self.width
        if query is key:  # self-attention: one matrix product computes both projections
            q, k = F.linear(query, self.in_proj_weight[: 2 * d], self.in_proj_bias[: 2 * d]).chunk(2, dim=-1)
            return q, k
        (in_q, in_k, _), (bias_q, bias_k, _) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        return F.linear(query, in_q, bias_q), F.linear(key, in_k, bias_k)

    def _split(self, x: Tensor) -> Tensor:
        # [B, N, D] -> [B, heads, N, D / heads]
        return x.reshape(*x.shape[:2], self.heads, self.width // self.heads).transpose(1, 2)


def _with(x: Tensor, position: Tensor | None) -> Tensor:
    return x if position is None else x + position
