"""Defines the configuration of the parts that several kinds of detector have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from detr_core.config import require


@dataclass(frozen=True)
class BackboneConfig:
    """The convolutional backbone.

    name: a torchvision ResNet, or `small`, a residual network of stride 12 for images of about 100 pixels; `small_deep` has twice
    its blocks. dilation: whether the last stride is replaced by dilation (the paper's DC5).
    weights: null trains from scratch, 'imagenet' takes torchvision's weights, else the path of a torchvision state dict.
    norm: `frozen` batch norm (as published; it requires pretrained weights to be useful) or `group` norm, which trains from
    scratch and does not depend on the batch.
    frozen_stages: the number of frozen parts, counted from the stem: 0 trains all, 2 freezes the stem and the first stage as
    published, 5 freezes the whole backbone.
    """

    name: Literal["small", "small_deep", "resnet18", "resnet34", "resnet50", "resnet101"]
    dilation: bool
    weights: str | None
    norm: Literal["frozen", "group"]
    frozen_stages: int

    def __post_init__(self) -> None:
        require(0 <= self.frozen_stages <= 5, "frozen_stages", "0 (train all) to 5 (train none)", self.frozen_stages)
        if self.name.startswith("small"):
            require(self.weights is None, "weights", "null for the small backbones", self.weights)
        if self.name in ("resnet18", "resnet34"):
            require(not self.dilation, "dilation", f"false, because the blocks of {self.name} can't be dilated", self.dilation)
        require(self.weights is None or self.norm == "frozen", "norm", "frozen with pretrained weights", self.norm)


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
        require(self.cells > 0, "cells", "at least 1", self.cells)
        require(self.factor > 0, "factor", "above 0", self.factor)
        scaled = self.kind != "none" and self.where == "input"
        require(scaled or self.factor == 1, "factor", "1, because no encodings are added at the input", self.factor)


class KindConfig(Protocol):
    """The fields that the configuration of every kind of detector has. kind: the name of the kind."""

    @property
    def kind(self) -> str: ...
    @property
    def backbone(self) -> BackboneConfig: ...


class QueryConfig(KindConfig, Protocol):
    """The configuration of a detector with object queries. queries: their number."""

    @property
    def queries(self) -> int: ...


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
    require(width > 0 and width % multiple == 0, "width", f"a multiple of {multiple} with {heads} heads", width)
    require(config.feed_forward >= 0, "feed_forward", "0 (none) or more", config.feed_forward)
    require(config.encoder_layers >= 0, "encoder_layers", "0 or more", config.encoder_layers)
    require(config.decoder_layers >= 1, "decoder_layers", "1 or more", config.decoder_layers)
    require(config.queries >= 1, "queries", "1 or more", config.queries)
    require(0 <= config.dropout < 1, "dropout", "a probability below 1", config.dropout)


def require_stages(stages: tuple[int, ...]) -> None:
    ordered = len(stages) > 0 and list(stages) == sorted(set(stages)) and set(stages) <= {1, 2, 3, 4}
    require(ordered, "stages", "some of 1, 2, 3, 4 in this order", list(stages))
