"""Configuration of UPSNet and of its losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require, require_between
from detr_core.model.common.config import MOST_CHANNELS
from detr_core.model.regions.config import MaskRegionConfig, MaskRegionLossWeights


@dataclass(frozen=True)
class UpsnetConfig(MaskRegionConfig):
    """UPSNet (arXiv 1901.03784): Mask R-CNN on a feature pyramid, with a semantic head and a panoptic head.

    semantic_width: the number of channels of the semantic head's deformable convolutions, 128 as published.
    """

    kind: Literal["upsnet"] = "upsnet"
    semantic_width: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width is not None, "width", "a number of channels, because the semantic head needs a pyramid", self.width)
        require_between(1, MOST_CHANNELS, "semantic_width", self.semantic_width)


@dataclass(frozen=True)
class UpsnetLossConfig(MaskRegionLossWeights):
    """The weights of UPSNet's losses. A weight of 0 turns a loss off.

    The published weights are relative to a weight of 1 for the losses of Mask R-CNN. semantic: the weight of the semantic head's
    cross-entropy over the pixels, 0.2 as published. semantic_boxes: that of the cross-entropy over the ground-truth boxes, which
    the authors weight by 0.2 within the semantic loss: 0.04 as published. panoptic: that of the panoptic head's cross-entropy,
    0.1 as published.
    """

    kind: Literal["upsnet"] = "upsnet"
    semantic: float = field(kw_only=True)
    semantic_boxes: float = field(kw_only=True)
    panoptic: float = field(kw_only=True)


@dataclass(frozen=True)
class UpsnetMergingConfig:
    """Configures which instances and which stuff UPSNet's panoptic maps have.

    The values are those of its authors for COCO. score: instances need a score above it. overlap: an instance is dropped if more
    than this share of it lies on instances of its class with higher scores. stuff_area: stuff of a class with fewer pixels than
    this is dropped.
    """

    score: float = 0.6
    overlap: float = 0.3
    stuff_area: int = 4096

    def __post_init__(self) -> None:
        require(0 <= self.score <= 1, "score", "a score between 0 and 1", self.score)
        require(0 <= self.overlap <= 1, "overlap", "a share between 0 and 1", self.overlap)
        require(self.stuff_area >= 0, "stuff_area", "0 or more pixels", self.stuff_area)
