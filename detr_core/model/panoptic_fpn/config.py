"""Configuration of Panoptic FPN and of its losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require
from detr_core.model.mask_rcnn.config import MaskRegionConfig, MaskRegionLossWeights

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
        good = self.semantic_width > 0 and self.semantic_width % GROUPS == 0
        require(good, "semantic_width", f"a multiple of {GROUPS}, the number of groups of its norms", self.semantic_width)


@dataclass(frozen=True)
class PanopticFpnLossConfig(MaskRegionLossWeights):
    """The weights of Panoptic FPN's losses.

    semantic: the weight of the semantic branch's cross-entropy against 1 for the losses of Mask R-CNN; Detectron2 has 0.5 for
    COCO (configs/COCO-PanopticSegmentation/Base-Panoptic-FPN.yaml, SEM_SEG_HEAD.LOSS_WEIGHT).
    """

    kind: Literal["panoptic_fpn"] = "panoptic_fpn"
    semantic: float = field(kw_only=True)
