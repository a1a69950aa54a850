"""Configuration of the set loss."""

from __future__ import annotations

from dataclasses import dataclass

from detr_core.config import require


@dataclass(frozen=True)
class LossConfig:
    """Weights of the set loss and of the matching cost, which are the same (sections 3.1 and A.2 of the paper).

    classification, l1, giou: 0 turns a term off. no_object: the weight of the no-object class in the class loss.
    auxiliary: also supervise every decoder layer before the last.
    """

    classification: float
    l1: float
    giou: float
    no_object: float
    auxiliary: bool

    def __post_init__(self) -> None:
        for name in ("classification", "l1", "giou"):
            require(getattr(self, name) >= 0, name, "0 (off) or more", getattr(self, name))
        require(self.classification > 0, "classification", "above 0: without it no query learns a class", self.classification)
        require(self.l1 + self.giou > 0, "l1", "this or `giou` above 0: without both no box is learned", self.l1)
        require(self.no_object > 0, "no_object", "above 0", self.no_object)


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
        require(0 <= self.alpha <= 1, "alpha", "between 0 and 1", self.alpha)
        require(self.gamma >= 0, "gamma", "0 or more", self.gamma)
