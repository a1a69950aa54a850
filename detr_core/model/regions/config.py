"""Defines what the configurations of the region detectors and of their losses share."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from detr_core.config import require, require_between
from detr_core.model.common.config import MOST_CHANNELS, BackboneConfig, architecture_fields, require_stages

MOST_PROPOSALS = 1_000_000


@dataclass(frozen=True)
class RegionConfig:
    """What the configurations of all region detectors share.

    The detector is torchvision's, on a feature pyramid or on the map of one stage, such as the dilated last one (DC5).

    stages: the backbone's stages that the pyramid is built on, finest first; one more level has half the last resolution. width:
    the number of channels of the pyramid; null: no pyramid, and `stages` has one stage. anchors: the anchor size of each level of
    the pyramid, or all anchor sizes on the map of the one stage, pixels. proposals: the number of proposals kept per image after
    NMS. candidates: the number of proposals per level before NMS. training_proposals, training_candidates: the same in training.
    `candidates` and these two are `proposals` if they are null. sampled_anchors, sampled_proposals: the number per image from
    which the losses are computed. head_width: the hidden width of the box head. version: torchvision's version of the pyramid and
    the heads. The second has norms like the backbone's in the pyramid, the box head and the mask head, two convolutions instead
    of one in the RPN head, and four convolutions and one linear layer instead of two linear layers in the box head. kind: the
    name of the kind; each subclass allows only its own name.
    """

    backbone: BackboneConfig
    stages: tuple[int, ...]
    width: int | None
    anchors: tuple[float, ...]
    proposals: int
    sampled_anchors: int
    sampled_proposals: int
    head_width: int
    candidates: int | None = field(default=None, metadata={"optional": True})
    training_proposals: int | None = field(default=None, metadata={"optional": True})
    training_candidates: int | None = field(default=None, metadata={"optional": True})
    version: Literal[1, 2] = field(default=1, metadata={"optional": True})
    kind: str = ""

    def __post_init__(self) -> None:
        require_stages(self.stages)
        sizes = list(self.anchors)
        if self.width is None:
            require(self.version == 1, "version", "1 if width is null, because version 2 also changes the pyramid", self.version)
            require(len(self.stages) == 1, "stages", "one stage, because width null means no pyramid", list(self.stages))
            require(0 < len(sizes) == len(set(sizes)), "anchors", "different sizes", sizes)
        else:
            require(len(sizes) == self.levels, "anchors", f"one size for each of the {self.levels} levels", sizes)
            dilation = self.backbone.dilation
            require(not dilation, "backbone.dilation", "false with a pyramid, whose strides double from level to level", dilation)
        require(min(sizes) > 0, "anchors", "sizes above 0", sizes)
        most = dict.fromkeys(("proposals", "candidates", "training_proposals", "training_candidates"), MOST_PROPOSALS)
        most |= dict.fromkeys(("width", "head_width"), MOST_CHANNELS)
        for name, bound in most.items():
            if (value := getattr(self, name)) is not None:
                require_between(1, bound, name, value)
        for name in ("sampled_anchors", "sampled_proposals"):
            require_between(2, MOST_PROPOSALS, name, getattr(self, name))
        for name, phase in (("candidates", "testing"), ("training_candidates", "training")):
            fewest = math.ceil(self.kept[phase] / self.levels)
            candidates = self.before_nms[phase]
            require(candidates >= fewest, name, f"{fewest} or more, so that {self.kept[phase]} proposals can be kept", candidates)

    def architecture(self) -> dict[str, Any]:
        """Returns the fields that determine the shapes and meaning of a detector's weights, as a flat mapping.

        Two detectors with equal fields can exchange weights. The numbers of proposals and of samples are left out.
        """
        numbers = ("proposals", "candidates", "training_proposals", "training_candidates", "sampled_anchors", "sampled_proposals")
        return {name: value for name, value in architecture_fields(self).items() if name not in numbers}

    @property
    def levels(self) -> int:
        """Returns the number of feature maps that have anchors."""
        return 1 if self.width is None else len(self.stages) + 1

    @property
    def kept(self) -> dict[str, int]:
        """Returns the number of proposals per image after NMS in 'training' and in 'testing'."""
        return {"training": self.training_proposals or self.proposals, "testing": self.proposals}

    @property
    def before_nms(self) -> dict[str, int]:
        """Returns the number of proposals per level before NMS in 'training' and in 'testing'."""
        return {"training": self.training_candidates or self.proposals, "testing": self.candidates or self.proposals}


@dataclass(frozen=True)
class MaskRegionConfig(RegionConfig):
    """What the configurations of Mask R-CNN and of the region detectors of things and stuff share.

    mask_width: the number of channels of the mask head's convolutions, 256 as published.
    """

    mask_width: int = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_between(1, MOST_CHANNELS, "mask_width", self.mask_width)


@dataclass(frozen=True)
class RegionLossWeights:
    """The weights of the losses that all region detectors have. A weight of 0 turns a loss off.

    objectness, classification: the class losses of the anchors and of the proposals. proposals, boxes: the smooth L1 losses of
    the box deltas of the anchors and of the proposals. proposals_giou, giou: the GIoU losses of the same boxes. beta: the
    difference at which smooth L1 changes from quadratic to linear; 0 is plain L1, as in Detectron2, and 1/9 is torchvision's.
    kind: the name of the losses; each subclass allows only its own name.
    """

    objectness: float
    proposals: float
    classification: float
    boxes: float
    giou: float
    proposals_giou: float = field(default=0.0, metadata={"optional": True})
    beta: float = field(default=1 / 9, metadata={"optional": True})
    kind: str = ""

    def __post_init__(self) -> None:
        weights = self.weights
        for name, weight in weights.items():
            require(weight >= 0, name, "0 (off) or more", weight)
        require(self.beta >= 0, "beta", "0 (L1) or more", self.beta)
        require(
            sum(weights.values()) > 0,
            "objectness",
            "at least one weight above 0, because nothing is learned otherwise",
            self.objectness,
        )

    @property
    def weights(self) -> dict[str, float]:
        """Returns the weight of each loss by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in ("beta", "kind")}


@dataclass(frozen=True)
class MaskRegionLossWeights(RegionLossWeights):
    """The weights of the losses that the region detectors with masks have.

    masks: the weight of the mask loss, 1 as published.
    """

    masks: float = field(kw_only=True)
