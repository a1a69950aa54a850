"""Configuration of the detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from detr_core.config import as_dict, flatten, require

AttentionMaps = Literal["released", "per_head", "none"]
"""The mask head's attention maps: a softmax over heads and pixels together, as released, or over each head's pixels; or none."""


@dataclass(frozen=True)
class BackboneConfig:
    """The convolutional backbone.

    name: a torchvision ResNet, or `small`: a residual network of stride 12 for images of about 100 pixels; `small_deep` has twice
    its blocks. dilation: the last stride becomes dilation (the paper's DC5).
    weights: null trains from scratch, 'imagenet' takes torchvision's, else a file with a torchvision state dict.
    norm: `frozen` batch norm (as published; needs pretrained weights to be of use) or `group` norm, which trains from scratch
    and does not depend on the batch.
    frozen_stages: of the stem and the first stage, as published: 0 trains all, 2 freezes both, 5 the whole backbone.
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
            require(not self.dilation, "dilation", f"false: {self.name}'s blocks can't be dilated", self.dilation)
        require(self.weights is None or self.norm == "frozen", "norm", "frozen with pretrained weights", self.norm)


@dataclass(frozen=True)
class PositionsConfig:
    """Spatial positional encodings (Table 3 of the paper).

    kind: `sine` (fixed), `learned` or `none`. where: added to queries and keys at every `attention`, in the `decoder`'s only,
    or once at the transformer's `input`. cells: rows and columns of the learned tables (larger maps interpolate); the
    published ones have 50.
    """

    kind: Literal["sine", "learned", "none"]
    where: Literal["attention", "decoder", "input"]
    cells: int

    def __post_init__(self) -> None:
        require(self.cells > 0, "cells", "at least 1", self.cells)


@dataclass(frozen=True)
class DetectorConfig:
    """DETR: backbone, encoder, decoder with object queries (section 3.2 of the paper).

    width: d of the transformer. feed_forward: hidden width of its FFNs; 0 leaves them out. queries: detection slots.
    pre_norm: LayerNorm before instead of after each sublayer. shared_heads: one class and box head for all decoder layers.
    """

    backbone: BackboneConfig
    positions: PositionsConfig
    width: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    dropout: float
    pre_norm: bool
    shared_heads: bool

    def __post_init__(self) -> None:
        require(self.heads > 0, "heads", "at least 1", self.heads)
        require(
            self.width > 0 and self.width % (4 * self.heads) == 0,
            "width",
            f"a multiple of 4 x heads = {4 * self.heads}",
            self.width,
        )
        require(self.feed_forward >= 0, "feed_forward", "0 (none) or more", self.feed_forward)
        require(self.encoder_layers >= 0, "encoder_layers", "0 or more", self.encoder_layers)
        require(self.decoder_layers >= 1, "decoder_layers", "1 or more", self.decoder_layers)
        require(self.queries >= 1, "queries", "1 or more", self.queries)
        require(0 <= self.dropout < 1, "dropout", "a probability below 1", self.dropout)


def architecture(config: DetectorConfig) -> dict[str, Any]:
    """What the weights of a detector depend on, as flat `field: value`: two with the same can share their weights.

    Left out are how it is trained (initial backbone weights, frozen stages, dropout) and the cells of positions without a table.
    """
    flat = flatten(as_dict(config))
    for field in ("backbone.weights", "backbone.frozen_stages", "dropout"):
        del flat[field]
    if config.positions.kind != "learned":
        del flat["positions.cells"]
    return flat
