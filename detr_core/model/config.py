"""Configuration of the detector: DETR, Deformable DETR or Faster R-CNN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

from detr_core.config import as_dict, build, flatten, require

AttentionMaps = Literal["released", "per_head", "none"]
"""The mask head's attention maps: 'released' has one softmax over all heads and pixels, 'per_head' one per head; or no maps."""


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
    """Spatial positional encodings (Table 3 of the paper).

    kind: `sine` (fixed), `learned` or `none`. where: the encodings are added to queries and keys in every `attention`, in the
    attention of the `decoder` only, or once at the `input` of the transformer. cells: the number of rows and columns of the
    learned tables, which larger maps interpolate; the published tables have 50.
    """

    kind: Literal["sine", "learned", "none"]
    where: Literal["attention", "decoder", "input"]
    cells: int

    def __post_init__(self) -> None:
        require(self.cells > 0, "cells", "at least 1", self.cells)


@dataclass(frozen=True)
class DetectorConfig:
    """DETR: backbone, encoder, decoder with object queries (section 3.2 of the paper).

    width: the transformer's width d. feed_forward: the hidden width of its FFNs; 0 leaves them out. queries: the number of object
    queries. pre_norm: whether LayerNorm comes before instead of after each sublayer. shared_heads: whether all decoder layers
    share one class head and one box head.
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
    kind: Literal["detr"] = "detr"

    def __post_init__(self) -> None:
        _require_width(self.width, self.heads, 4 * self.heads)
        require(self.feed_forward >= 0, "feed_forward", "0 (none) or more", self.feed_forward)
        require(self.encoder_layers >= 0, "encoder_layers", "0 or more", self.encoder_layers)
        require(self.decoder_layers >= 1, "decoder_layers", "1 or more", self.decoder_layers)
        require(self.queries >= 1, "queries", "1 or more", self.queries)
        require(0 <= self.dropout < 1, "dropout", "a probability below 1", self.dropout)


@dataclass(frozen=True)
class DeformableConfig:
    """Deformable DETR (arXiv 2010.04159): attention at a few learned points of several feature maps.

    stages: the backbone's stages whose maps are used, finest first. levels: the total number of feature maps; each additional map
    has half the resolution of the one before. points: the number of points that each head samples in each level. refine: whether
    each decoder layer corrects the boxes of the previous layer with its own heads (the paper's iterative box refinement). The
    other fields have the same meaning as in DetectorConfig. Positional encodings are sines.
    """

    backbone: BackboneConfig
    stages: tuple[int, ...]
    levels: int
    points: int
    width: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    dropout: float
    pre_norm: bool
    refine: bool
    kind: Literal["deformable"] = "deformable"

    def __post_init__(self) -> None:
        _require_stages(self.stages)
        require(self.levels >= len(self.stages), "levels", f"at least the number of stages, {len(self.stages)}", self.levels)
        require(self.points >= 1, "points", "1 or more", self.points)
        _require_width(self.width, self.heads, math.lcm(4 * self.heads, 32))
        require(self.feed_forward >= 0, "feed_forward", "0 (none) or more", self.feed_forward)
        require(self.encoder_layers >= 0, "encoder_layers", "0 or more", self.encoder_layers)
        require(self.decoder_layers >= 1, "decoder_layers", "1 or more", self.decoder_layers)
        require(self.queries >= 1, "queries", "1 or more", self.queries)
        require(0 <= self.dropout < 1, "dropout", "a probability below 1", self.dropout)


@dataclass(frozen=True)
class FasterRcnnConfig:
    """torchvision's Faster R-CNN on a feature pyramid.

    stages: the backbone's stages that the pyramid is built on, finest first; one more level has half the last resolution. width:
    the number of channels of the pyramid. anchors: the anchor size of each level, pixels. proposals: the number of proposals kept
    per image after NMS, and per level before NMS. sampled_anchors, sampled_proposals: the number per image that the losses are
    computed on. head_width: the hidden width of the box head.
    """

    backbone: BackboneConfig
    stages: tuple[int, ...]
    width: int
    anchors: tuple[float, ...]
    proposals: int
    sampled_anchors: int
    sampled_proposals: int
    head_width: int
    kind: Literal["faster_rcnn"] = "faster_rcnn"

    def __post_init__(self) -> None:
        _require_stages(self.stages)
        levels = len(self.stages) + 1
        require(len(self.anchors) == levels, "anchors", f"one size for each of the {levels} levels", list(self.anchors))
        require(min(self.anchors) > 0, "anchors", "sizes above 0", list(self.anchors))
        for name in ("width", "proposals", "head_width"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        for name in ("sampled_anchors", "sampled_proposals"):
            require(getattr(self, name) >= 2, name, "2 or more", getattr(self, name))


AnyDetectorConfig = DetectorConfig | DeformableConfig | FasterRcnnConfig


def detector_config(value: object, where: str) -> AnyDetectorConfig:
    """Returns the configuration of the kind of detector in the mapping `value`. Raises ConfigError as `build` does."""
    return cast(AnyDetectorConfig, build(cast(Any, AnyDetectorConfig), value, where))


def _require_width(width: int, heads: int, multiple: int) -> None:
    require(heads > 0, "heads", "at least 1", heads)
    require(width > 0 and width % multiple == 0, "width", f"a multiple of {multiple} with {heads} heads", width)


def _require_stages(stages: tuple[int, ...]) -> None:
    ordered = len(stages) > 0 and list(stages) == sorted(set(stages)) and set(stages) <= {1, 2, 3, 4}
    require(ordered, "stages", "some of 1, 2, 3, 4 in this order", list(stages))


def architecture(config: DetectorConfig) -> dict[str, Any]:
    """Returns the fields that determine the shapes and meaning of a detector's weights, as a flat mapping.

    Two detectors with equal fields can exchange weights. Fields that concern only the training (initial backbone weights, frozen
    stages, dropout), and the cells of positions without a table, are left out.
    """
    flat = flatten(as_dict(config))
    for field in ("backbone.weights", "backbone.frozen_stages", "dropout"):
        del flat[field]
    if config.positions.kind != "learned":
        del flat["positions.cells"]
    return flat
