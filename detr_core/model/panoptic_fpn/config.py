"""Defines the configuration of Panoptic FPN, of its losses, and of the merging of its results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require
from detr_core.model.common.config import MOST_CHANNELS
from detr_core.model.regions.config import MaskRegionConfig, MaskRegionLossWeights

GROUPS = 32  # groups of the semantic branch's group norms, as published


@dataclass(frozen=True)
class PanopticFpnConfig(MaskRegionConfig):
    """Panoptic FPN (arXiv 1901.02446): Mask R-CNN on a feature pyramid, with a semantic branch on the same pyramid.

    semantic_width: the number of channels of the semantic branch, 128 as published.
    """

    kind: Literal["panoptic_fpn"] = "panoptic_fpn"
    semantic_width: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width is not None, "width", "a number of channels, because the semantic branch needs a pyramid", self.width)
        fits = 0 < self.semantic_width <= MOST_CHANNELS and self.semantic_width % GROUPS == 0
        expected = f"a multiple of {GROUPS}, the number of groups of its norms, up to {MOST_CHANNELS:,}"
        require(fits, "semantic_width", expected, self.semantic_width)


@dataclass(frozen=True)
class PanopticFpnLossConfig(MaskRegionLossWeights):
    """The weights of Panoptic FPN's losses.

    semantic: the weight of the semantic branch's cross-entropy. Detectron2 has 0.5 for COCO, relative to a weight of 1 for the
    losses of Mask R-CNN (configs/COCO-PanopticSegmentation/Base-Panoptic-FPN.yaml, SEM_SEG_HEAD.LOSS_WEIGHT).
    """

    kind: Literal["panoptic_fpn"] = "panoptic_fpn"
    semantic: float = field(kw_only=True)


@dataclass(frozen=True)
class PanopticFpnMergingConfig:
    """Configures how Panoptic FPN merges its instances and its semantic segmentation into one panoptic map.

    The values are those of Detectron2. score: instances below it are dropped. overlap: an instance is dropped if more than this
    share of it is taken by instances of higher scores. stuff_area: stuff of a class with fewer free pixels than this is dropped.
    """

    score: float = 0.5
    overlap: float = 0.5
    stuff_area: int = 4096

    def __post_init__(self) -> None:
        require(0 <= self.score <= 1, "score", "a score between 0 and 1", self.score)
        require(0 <= self.overlap <= 1, "overlap", "a share between 0 and 1", self.overlap)
        require(self.stuff_area >= 0, "stuff_area", "0 or more pixels", self.stuff_area)
