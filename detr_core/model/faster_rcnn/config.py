"""Configuration of Faster R-CNN and of its losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.config import require
from detr_core.model.common.config import BackboneConfig, require_stages


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
        require_stages(self.stages)
        levels = len(self.stages) + 1
        require(len(self.anchors) == levels, "anchors", f"one size for each of the {levels} levels", list(self.anchors))
        require(min(self.anchors) > 0, "anchors", "sizes above 0", list(self.anchors))
        for name in ("width", "proposals", "head_width"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        for name in ("sampled_anchors", "sampled_proposals"):
            require(getattr(self, name) >= 2, name, "2 or more", getattr(self, name))


@dataclass(frozen=True)
class RegionLossConfig:
    """Weights of Faster R-CNN's losses.

    objectness, proposals: the classification and the box regression of the anchors. classification, boxes: the class loss and the
    smooth L1 loss of the proposals. giou: an additional GIoU loss of the proposals' boxes, as in the paper's Faster R-CNN+. A
    weight of 0 turns a loss off.
    """

    objectness: float
    proposals: float
    classification: float
    boxes: float
    giou: float
    kind: Literal["regions"] = "regions"

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in ("objectness", "proposals", "classification", "boxes", "giou")}
        for name, weight in weights.items():
            require(weight >= 0, name, "0 (off) or more", weight)
        require(
            sum(weights.values()) > 0,
            "objectness",
            "at least one weight above 0, because nothing is learned otherwise",
            self.objectness,
        )
