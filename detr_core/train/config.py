"""Configuration of training: the detector's and the mask head's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from detr_core.config import require
from detr_core.data.config import AugmentationConfig, ResizeConfig
from detr_core.loss.config import LossConfig, MaskLossConfig
from detr_core.model.config import AttentionMaps


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. lr: of everything but the backbone. clip_norm: largest norm of the whole gradient."""

    lr: float
    backbone_lr: float
    weight_decay: float
    clip_norm: float

    def __post_init__(self) -> None:
        require(self.lr > 0, "lr", "above 0", self.lr)
        require(self.backbone_lr >= 0, "backbone_lr", "0 or more", self.backbone_lr)
        require(self.weight_decay >= 0, "weight_decay", "0 or more", self.weight_decay)
        require(self.clip_norm > 0, "clip_norm", "above 0", self.clip_norm)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over time: `step` divides it by ten at `drop_epoch`, `cosine` takes it to 0 at the end.

    warmup_steps: optimiser steps of linear warm-up from 0.
    """

    kind: Literal["step", "cosine"]
    warmup_steps: int
    drop_epoch: int | None

    def __post_init__(self) -> None:
        require(self.warmup_steps >= 0, "warmup_steps", "0 or more", self.warmup_steps)
        require(
            (self.drop_epoch is not None) == (self.kind == "step"),
            "drop_epoch",
            "an epoch with kind 'step', null with 'cosine'",
            self.drop_epoch,
        )


@dataclass(frozen=True)
class TrainConfig:
    """What both trainings share. All counts are of the whole run, whatever the number of processes.

    batch_size: images an optimiser step, over all processes and micro-batches. accumulation: micro-batches a step.
    steps: stop after so many optimiser steps, null for all epochs. validate_every: epochs between two AP measurements.
    checkpoint_every: optimiser steps between two checkpoints to resume from. resize: of validation images, null for none.
    """

    seed: int
    epochs: int
    steps: int | None
    batch_size: int
    accumulation: int
    precision: Literal["float32", "bfloat16"]
    validate_every: int
    checkpoint_every: int
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    augmentation: AugmentationConfig
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation", "validate_every", "checkpoint_every"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        require(self.steps is None or self.steps >= 1, "steps", "1 or more, or null", self.steps)
        require(
            self.batch_size % self.accumulation == 0,
            "accumulation",
            f"a divisor of batch_size {self.batch_size}",
            self.accumulation,
        )
        drop = self.schedule.drop_epoch
        require(drop is None or 0 < drop < self.epochs, "schedule.drop_epoch", f"between 1 and {self.epochs - 1}", drop)


@dataclass(frozen=True)
class InitConfig:
    """The trained detector that fine-tuning starts from, ours or a published one.

    checkpoint: a path, or an address. sha256: of the file, hexadecimal; null leaves a file at a path unchecked.
    """

    checkpoint: str
    sha256: str | None

    def __post_init__(self) -> None:
        hexadecimal = self.sha256 is not None and re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        require(self.sha256 is None or hexadecimal, "sha256", "64 lower-case hexadecimal digits, or null", self.sha256)
        require(hexadecimal or "://" not in self.checkpoint, "sha256", "the checksum of what the address has", self.sha256)


@dataclass(frozen=True)
class DetectionConfig(TrainConfig):
    """Training of the detector. targets: boxes of `instances` (things), or of `panoptic` segments (things and stuff).

    init: null trains from the backbone's weights on. positions_std: standard deviation of learned positions' first values; null
    as published: uniform between 0 and 1, so alike that a short training is over before they tell places apart.
    """

    init: InitConfig | None
    positions_std: float | None
    targets: Literal["instances", "panoptic"]
    loss: LossConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.positions_std is None or self.positions_std > 0, "positions_std", "above 0, or null", self.positions_std)


@dataclass(frozen=True)
class PanopticConfig(TrainConfig):
    """Training of the mask head on the frozen detector, on panoptic segments.

    attention_maps: what the mask head starts from: attention maps with a softmax as 'released' or 'per_head', or 'none'.
    attention_gain: what the initial weights of the attention maps are multiplied by, 1 as published. A map's values average one
    over heads x positions; with a gain of that size a short training needn't first learn to see them.
    """

    attention_maps: AttentionMaps
    attention_gain: float
    loss: MaskLossConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.attention_gain > 0, "attention_gain", "above 0", self.attention_gain)
        gains = self.attention_maps != "none" or self.attention_gain == 1
        require(gains, "attention_gain", "1 where attention_maps is none", self.attention_gain)
