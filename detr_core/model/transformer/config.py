"""Defines the configuration of the parts that the kinds of detectors with a transformer share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from detr_core.config import require, require_between
from detr_core.model.common.config import MOST_CHANNELS, QueryConfig

MOST_QUERIES = 10_000  # their self-attention has the square of this number of weights
MOST_LAYERS = 1_000
MOST_CELLS = 65_535


@dataclass(frozen=True)
class PositionsConfig:
    """Positional encodings of the image and of the object queries (Table 3 of the paper).

    kind: the encodings of the image are `sine` (fixed), `learned` or `none`. where: they are added to queries and keys in every
    `attention`, in the attention of the `decoder` only, or once at the `input` of the transformer. factor: the factor by
    which they are multiplied at the input; the paper names none. cells: the number of rows and columns of the learned tables,
    which larger maps interpolate; the published tables have 50.
    queries: the object queries, which are always learned, are added to queries and keys in every `attention` of the decoder,
    whose input is zero, or they are the decoder's `input` and are added nowhere.
    """

    kind: Literal["sine", "learned", "none"]
    where: Literal["attention", "decoder", "input"]
    cells: int
    queries: Literal["attention", "input"]
    factor: float

    def __post_init__(self) -> None:
        require_between(1, MOST_CELLS, "cells", self.cells)
        require(self.factor > 0, "factor", "above 0", self.factor)
        scaled = self.kind != "none" and self.where == "input"
        require(scaled or self.factor == 1, "factor", "1, because no encodings are added at the input", self.factor)


class LayerConfig(Protocol):
    """The configuration of a layer, which all detectors with a transformer provide."""

    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def feed_forward(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def pre_norm(self) -> bool: ...


class TransformerConfig(QueryConfig, LayerConfig, Protocol):
    """The configuration of a detector with a transformer. The fields have the same meaning as in DetrConfig."""

    @property
    def encoder_layers(self) -> int: ...
    @property
    def decoder_layers(self) -> int: ...


def require_transformer(config: TransformerConfig, multiple: int) -> None:
    """Raises ConfigError, which names the key, for a transformer that can't be built. multiple: must divide the width."""
    width, heads = config.width, config.heads
    require(heads > 0, "heads", "at least 1", heads)
    fits = 0 < width <= MOST_CHANNELS and width % multiple == 0
    require(fits, "width", f"a multiple of {multiple} with {heads} heads, at most {MOST_CHANNELS:,}", width)
    require_between(0, MOST_CHANNELS, "feed_forward", config.feed_forward)
    require_between(0, MOST_LAYERS, "encoder_layers", config.encoder_layers)
    require_between(1, MOST_LAYERS, "decoder_layers", config.decoder_layers)
    require_between(1, MOST_QUERIES, "queries", config.queries)
    require(0 <= config.dropout < 1, "dropout", "a probability below 1", config.dropout)
