"""Configuration of the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.config import require


@dataclass(frozen=True)
class LossConfig:
    """Weights of the set loss and of the matching cost, which are the same (sections 3.1 and A.2 of the paper).

    classification, l1, giou: 0 turns a term off, in the matching too; not all of them can be off. no_object: the weight of the
    no-object class in the class loss. auxiliary: also supervise every decoder layer before the last.
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
    """The set loss with a sigmoid focal loss (alpha, gamma) for the classes and in matching, as Deformable DETR has it.

    The rest as in LossConfig; there is no no-object class.
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

    objectness, proposals: of the anchors, whether there is an object and where. classification, boxes: of the proposals, class
    and smooth L1. giou: of the proposals' boxes beside it, as the paper's Faster R-CNN+ has it. 0 turns any of them off.
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
        require(sum(weights.values()) > 0, "objectness", "one of the weights above 0: else nothing is learned", self.objectness)


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
        require(self.focal + self.dice > 0, "focal", "this or `dice` above 0", self.focal)
        _require_focal(self.alpha, self.gamma)


def _require_set_weights(classification: float, l1: float, giou: float) -> None:
    for name, weight in (("classification", classification), ("l1", l1), ("giou", giou)):
        require(weight >= 0, name, "0 (off) or more", weight)
    anything = classification + l1 + giou > 0
    require(anything, "classification", "this, `l1` or `giou` above 0: without all of them nothing is learned", classification)


def _require_focal(alpha: float, gamma: float) -> None:
    require(0 <= alpha <= 1, "alpha", "between 0 and 1", alpha)
    require(gamma >= 0, "gamma", "0 or more", gamma)
