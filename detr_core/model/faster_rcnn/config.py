"""Defines the configuration of Faster R-CNN and of its losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.model.regions.config import RegionConfig, RegionLossWeights


@dataclass(frozen=True)
class FasterRcnnConfig(RegionConfig):
    """Faster R-CNN, which has no keys of its own."""

    kind: Literal["faster_rcnn"] = "faster_rcnn"


@dataclass(frozen=True)
class RegionLossConfig(RegionLossWeights):
    """The weights of Faster R-CNN's losses."""

    kind: Literal["regions"] = "regions"
