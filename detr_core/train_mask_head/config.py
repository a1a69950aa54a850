"""Defines the configuration of the training of the mask head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.config import require
from detr_core.loss.config import require_focal
from detr_core.model.detr.config import AttentionMaps
from detr_core.train.config import InitConfig, TrainConfig


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
        require_focal(self.alpha, self.gamma)


@dataclass(frozen=True)
class PanopticConfig(TrainConfig):
    """Configures the training of the mask head (section 4.4 of the paper).

    targets: masks of `panoptic` segments (things and stuff), or of `instances` (things); the detector must have been trained on
    the boxes of the same annotations. detector: a `frozen` detector does not change, as in the paper's results; with `joint` it
    learns too, by the loss of its own training in addition to the losses of the masks. The training starts from the detector that
    the stage `train_detection` has trained. init: a checkpoint whose mask head is trained further, with any classes; null starts
    with a new mask head. attention_maps: the mask head's input: attention maps with a softmax as 'published' or 'per_head', or
    'none'. attention_gain: the factor of the initial weights of the attention maps, 1 as published. The mean value of a map is
    1 / (heads x positions); with a gain of heads x positions a short training need not learn this scale first.
    """

    targets: Literal["panoptic", "instances"]
    detector: Literal["frozen", "joint"]
    init: InitConfig | None
    attention_maps: AttentionMaps
    attention_gain: float
    loss: MaskLossConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.attention_gain > 0, "attention_gain", "above 0", self.attention_gain)
        has_maps = self.attention_maps != "none" or self.attention_gain == 1
        require(has_maps, "attention_gain", "1 if attention_maps is none", self.attention_gain)
        is_new = self.init is None or self.attention_gain == 1
        require(is_new, "attention_gain", "1 if init provides the weights", self.attention_gain)
