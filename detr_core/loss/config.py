"""Defines the configuration of the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.config import require


@dataclass(frozen=True)
class SoftmaxLossConfig:
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

    The other fields have the same meaning as in SoftmaxLossConfig. There is no no-object class.
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
        require_focal(self.alpha, self.gamma)


SetLossConfig = SoftmaxLossConfig | FocalLossConfig


def _require_set_weights(classification: float, l1: float, giou: float) -> None:
    for name, weight in (("classification", classification), ("l1", l1), ("giou", giou)):
        require(weight >= 0, name, "0 (off) or more", weight)
    has_weight = classification + l1 + giou > 0
    require(has_weight, "classification", "`classification`, `l1` or `giou` above 0", classification)


def require_focal(alpha: float, gamma: float) -> None:
    require(0 <= alpha <= 1, "alpha", "between 0 and 1", alpha)
    require(gamma >= 0, "gamma", "0 or more", gamma)
