"""Configuration of Mask R-CNN and of its losses, and what the configurations of detectors that are built on it share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require
from detr_core.model.faster_rcnn.config import RegionConfig, RegionLossWeights


@dataclass(frozen=True)
class MaskRegionConfig(RegionConfig):
    """What the configurations of Mask R-CNN and of the detectors that are built on it share.

    mask_width: the number of channels of the mask head's convolutions, 256 as published.
    """

    mask_width: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.mask_width >= 1, "mask_width", "1 or more", self.mask_width)


@dataclass(frozen=True)
class MaskRcnnConfig(MaskRegionConfig):
    """Mask R-CNN, which has no further keys."""

    kind: Literal["mask_rcnn"] = "mask_rcnn"


@dataclass(frozen=True)
class MaskRegionLossWeights(RegionLossWeights):
    """The weights of the losses of Mask R-CNN and of the detectors that are built on it.

    masks: the weight of the mask loss, 1 as published.
    """

    masks: float = field(kw_only=True)


@dataclass(frozen=True)
class MaskRcnnLossConfig(MaskRegionLossWeights):
    """The weights of Mask R-CNN's losses."""

    kind: Literal["regions_and_masks"] = "regions_and_masks"
