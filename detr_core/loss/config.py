"""Configuration of the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.config import require


@dataclass(frozen=True)
class LossConfig:
    """Weights of the set loss and of the matching cost, which are the same (sections 3.1 and A.2 of the paper).

    classification, l1, giou: weights; 0 turns a term off in the loss and the matching, but not all terms can be off. no_object:
    the weight of the no-object class in the class loss. auxiliary: whether the decoder layers before the last are supervised too.
    """

    classification: float
    l1: float
    giou: float
    no_object: float
    auxiliary: bool
    kind: Literal["softmax"] = "softmax"

    def __post_init__(self) -> None:
        _require_set_weights(self.classification, self.l1, self.giou)
        require(self.no_object > 0, "no_object", "above 0", self.no_object)


@dataclass(frozen=True)
class FocalLossConfig:
    """Weights of the set loss with a sigmoid focal loss (alpha, gamma) for the classes and the matching, as in Deformable DETR.

    The other fields have the same meaning as in LossConfig. There is no no-object class.
    """

    classification: float
    l1: float
    giou: float
    alpha: float
    gamma: float
    auxiliary: bool
    kind: Literal["focal"] = "focal"

    def __post_init__(self) -> None:
        _require_set_weights(self.classification, self.l1, self.giou)
        _require_focal(self.alpha, self.gamma)


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


SetLossConfig = LossConfig | FocalLossConfig


@dataclass(frozen=True)
class MaskLossConfig:
    """Weights of the mask head's losses (section 4.4): focal loss (alpha, gamma) and DICE."""

    focal: float
    dice: float
    alpha: float
    gamma: float

    def __post_init__(self) -> None:
        require(self.focal >= 0, "focal", "0 or more", self.focal)
        require(self.dice >= 0, "dice", "0 or more", self.dice)
        require(self.focal + self.dice > 0, "focal", "`focal` or `dice` above 0", self.focal)
        _require_focal(self.alpha, self.gamma)


def _require_set_weights(classification: float, l1: float, giou: float) -> None:
    for name, weight in (("classification", classification), ("l1", l1), ("giou", giou)):
        require(weight >= 0, name, "0 (off) or more", weight)
    anything = classification + l1 + giou > 0
    require(anything, "classification", "`classification`, `l1` or `giou` above 0", classification)


def _require_focal(alpha: float, gamma: float) -> None:
    require(0 <= alpha <= 1, "alpha", "between 0 and 1", alpha)
    require(gamma >= 0, "gamma", "0 or more", gamma)
