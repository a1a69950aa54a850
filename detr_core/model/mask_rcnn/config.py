"""Defines the configuration of Mask R-CNN and of its losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.model.regions.config import MaskRegionConfig, MaskRegionLossWeights


@dataclass(frozen=True)
class MaskRcnnConfig(MaskRegionConfig):
    """Mask R-CNN, which has no further keys."""

    kind: Literal["mask_rcnn"] = "mask_rcnn"


@dataclass(frozen=True)
class MaskRcnnLossConfig(MaskRegionLossWeights):
    """The weights of Mask R-CNN's losses."""

    kind: Literal["regions_and_masks"] = "regions_and_masks"
