"""Configuration of training: the detector's and the mask head's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from detr_core.config import require
from detr_core.data.config import AugmentationConfig, ResizeConfig
from detr_core.loss.config import FocalLossConfig, LossConfig, MaskLossConfig, RegionLossConfig
from detr_core.model.config import AnyDetectorConfig, AttentionMaps


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. lr: of everything but the backbone. clip_norm: largest norm of the whole gradient.

    sampling_lr: of what places the sampling points of a deformable detector; null for one that has none.
    """

    lr: float
    backbone_lr: float
    weight_decay: float
    clip_norm: float
    sampling_lr: float | None = None
    kind: Literal["adamw"] = "adamw"

    def __post_init__(self) -> None:
        _require_rates(self.lr, self.backbone_lr, self.weight_decay)
        require(self.clip_norm > 0, "clip_norm", "above 0", self.clip_norm)
        require(self.sampling_lr is None or self.sampling_lr >= 0, "sampling_lr", "0 or more, or null", self.sampling_lr)


@dataclass(frozen=True)
class SgdConfig:
    """Gradient descent with momentum. lr: of everything but the backbone. clip_norm: null leaves gradients as they are."""

    lr: float
    backbone_lr: float
    momentum: float
    weight_decay: float
    clip_norm: float | None
    kind: Literal["sgd"] = "sgd"

    def __post_init__(self) -> None:
        _require_rates(self.lr, self.backbone_lr, self.weight_decay)
        require(0 <= self.momentum < 1, "momentum", "0 or more, below 1", self.momentum)
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "above 0, or null", self.clip_norm)


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
    optimizer: OptimizerConfig | SgdConfig
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
    """The checkpoint that a training starts from, ours or a published one.

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
    as published: uniform between 0 and 1, so alike that a short training is over before they tell places apart. A detector
    without learned positions takes no notice of it. loss: the one that goes with the kind of detector.
    """

    init: InitConfig | None
    positions_std: float | None
    targets: Literal["instances", "panoptic"]
    loss: LossConfig | FocalLossConfig | RegionLossConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.positions_std is None or self.positions_std > 0, "positions_std", "above 0, or null", self.positions_std)


@dataclass(frozen=True)
class PanopticConfig(TrainConfig):
    """Training of the mask head on the frozen detector, on panoptic segments.

    init: a checkpoint whose mask head is trained on, whatever its classes; null makes a new one. The detector is in any case that
    of the training before. attention_maps: what the mask head sees: attention maps with a softmax as 'released' or 'per_head', or
    'none'.
    attention_gain: what the initial weights of the attention maps are multiplied by, 1 as published. A map's values average one
    over heads x positions; with a gain of that size a short training needn't first learn to see them.
    """

    init: InitConfig | None
    attention_maps: AttentionMaps
    attention_gain: float
    loss: MaskLossConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.attention_gain > 0, "attention_gain", "above 0", self.attention_gain)
        gains = self.attention_maps != "none" or self.attention_gain == 1
        require(gains, "attention_gain", "1 where attention_maps is none", self.attention_gain)
        new = self.init is None or self.attention_gain == 1
        require(new, "attention_gain", "1 where init has the weights that it would be of", self.attention_gain)


LOSS_OF = {"detr": "softmax", "deformable": "focal", "faster_rcnn": "regions"}


def require_fit(detector: AnyDetectorConfig, training: DetectionConfig) -> None:
    """Raises ConfigError, which names both, where this kind of detector can't be trained so."""
    kind = detector.kind

    def fits(condition: bool, field: str, expected: str, found: object) -> None:
        require(condition, f"train_detection.{field}", f"{expected} with detector.kind {kind!r}", found)

    fits(training.loss.kind == LOSS_OF[kind], "loss.kind", repr(LOSS_OF[kind]), training.loss.kind)
    optimizer = training.optimizer
    if isinstance(optimizer, OptimizerConfig):
        given = optimizer.sampling_lr is not None
        expected = "a learning rate" if kind == "deformable" else "null"
        fits(given == (kind == "deformable"), "optimizer.sampling_lr", expected, optimizer.sampling_lr)
    else:
        fits(kind == "faster_rcnn", "optimizer.kind", "'adamw'", optimizer.kind)
    fits(training.init is None or kind == "detr", "init", "null", training.init and training.init.checkpoint)


def _require_rates(lr: float, backbone_lr: float, weight_decay: float) -> None:
    require(lr > 0, "lr", "above 0", lr)
    require(backbone_lr >= 0, "backbone_lr", "0 or more", backbone_lr)
    require(weight_decay >= 0, "weight_decay", "0 or more", weight_decay)
