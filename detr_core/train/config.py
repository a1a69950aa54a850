"""Defines the configuration of the trainings of the detector and of the mask head."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require, require_between
from detr_core.data.config import LARGEST_BATCH, AugmentationConfig, ResizeConfig
from detr_core.data.distribution import Distribution
from detr_core.model.spec import AnyDetectorConfig, AnyLossConfig, kind_of

MOST_STEPS = 10**9  # of a training, in steps or epochs; a larger number is a mistake


@dataclass(frozen=True)
class OptimizerConfig:
    """Configures the optimizer AdamW.

    lr: the learning rate of all parameters except the backbone's. clip_norm: the largest norm of the whole gradient.
    sampling_lr: the learning rate of the parameters that determine the sampling points of a deformable detector; null for other
    detectors.
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
    """Configures gradient descent with momentum.

    lr: the learning rate of all parameters except the backbone's. clip_norm: the largest norm of the gradient over all
    parameters; null does not clip gradients.
    """

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
    """The learning rate schedule: `step` divides the rate by ten at each of `drop_epochs`, `cosine` decreases it to 0 at the end.

    warmup_steps: the number of optimizer steps of linear warm-up from 0. drop_epochs: numbers of epochs in ascending order; the
    rate drops after that many epochs. The list is empty with kind 'cosine'.
    """

    kind: Literal["step", "cosine"]
    warmup_steps: int
    drop_epochs: tuple[int, ...]

    def __post_init__(self) -> None:
        require_between(0, MOST_STEPS, "warmup_steps", self.warmup_steps)
        drops = list(self.drop_epochs)
        require(
            (len(drops) > 0) == (self.kind == "step"),
            "drop_epochs",
            "one epoch or more with kind 'step', an empty list with kind 'cosine'",
            drops,
        )
        require(drops == sorted(set(drops)), "drop_epochs", "different epochs in ascending order", drops)


@dataclass(frozen=True)
class CompileConfig:
    """Configures torch.compile. It compiles the backbone and the layers of the transformer for each padded size anew.

    multiple: padded heights and widths are multiples of this number of pixels, so that there are few sizes. More padding changes
    results slightly, because the backbone sees it. backend: 'inductor' makes fast kernels; the others make none, and serve to
    find errors.
    """

    multiple: int
    backend: Literal["inductor", "aot_eager", "eager"] = field(default="inductor", metadata={"optional": True})

    def __post_init__(self) -> None:
        require_between(1, 1_024, "multiple", self.multiple)


@dataclass(frozen=True)
class TrainConfig:
    """The common configuration of both trainings. Its numbers do not depend on the number of processes.

    batch_size: images per optimizer step, over all processes and micro-batches. accumulation: micro-batches per step and process.
    precision: of the network in training; with `tf32` a GPU's matrix products and convolutions read 10 bits of each fraction.
    distribution: which images of a step a process and a micro-batch get: `random`, as published, or `by_shape`, which pads less
    (see `BatchPlan`). It decides how much padding an image gets, and the backbone sees the padding.
    steps: the number of optimizer steps after which the training stops, null for all epochs. validate_every: epochs between two
    validations. validate_last: the number of last epochs after each of which the training validates too, whatever
    `validate_every` says; the paper takes the median of the last ten. checkpoint_every: optimizer steps between two saved states
    to resume from. resize: the resizing of validation images, null for none. fold_norm: whether frozen batch norm is folded into
    the convolutions before it, which is faster on a GPU and changes results by rounding. ema_decay: the decay of an exponential
    moving average of the weights, which is then validated and saved in place of the weights; null for none.
    activation_checkpointing: whether the backward pass computes activations again, which saves memory and changes no result.
    compile: how torch.compile compiles the detector for the training; null compiles nothing.
    """

    seed: int
    epochs: int
    steps: int | None
    batch_size: int
    accumulation: int
    precision: Literal["float32", "tf32", "bfloat16"]
    validate_every: int
    validate_last: int
    checkpoint_every: int
    optimizer: OptimizerConfig | SgdConfig
    schedule: ScheduleConfig
    augmentation: AugmentationConfig
    resize: ResizeConfig | None
    distribution: Distribution = field(default="random", kw_only=True, metadata={"optional": True})
    fold_norm: bool = field(default=False, kw_only=True, metadata={"optional": True})
    ema_decay: float | None = field(default=None, kw_only=True, metadata={"optional": True})
    activation_checkpointing: bool = field(default=False, kw_only=True, metadata={"optional": True, "decides": False})
    compile: CompileConfig | None = field(default=None, kw_only=True, metadata={"optional": True})

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulation", "validate_every", "checkpoint_every"):
            require_between(1, MOST_STEPS, name, getattr(self, name))
        require_between(1, LARGEST_BATCH, "batch_size", self.batch_size)
        require(0 <= self.seed < 2**63, "seed", "0 or more, below 2^63", self.seed)
        require(0 <= self.validate_last <= self.epochs, "validate_last", f"0 to {self.epochs} epochs", self.validate_last)
        if self.steps is not None:
            require_between(1, MOST_STEPS, "steps", self.steps)
        require(
            self.batch_size % self.accumulation == 0,
            "accumulation",
            f"a divisor of batch_size {self.batch_size}",
            self.accumulation,
        )
        decay = self.ema_decay
        require(decay is None or 0 < decay < 1, "ema_decay", "above 0 and below 1, or null", decay)
        drops = self.schedule.drop_epochs
        valid = all(0 < drop < self.epochs for drop in drops)
        require(valid, "schedule.drop_epochs", f"epochs between 1 and {self.epochs - 1}", list(drops))


@dataclass(frozen=True)
class InitConfig:
    """The checkpoint that a training starts from, in the project's format or a published one.

    checkpoint: a path or an address. sha256: the checksum of the file, 64 hexadecimal digits; null does not check a file at a
    path, and is not allowed for an address.
    """

    checkpoint: str
    sha256: str | None

    def __post_init__(self) -> None:
        hexadecimal = self.sha256 is not None and re.fullmatch("[0-9a-f]{64}", self.sha256) is not None
        require(self.sha256 is None or hexadecimal, "sha256", "64 lower-case hexadecimal digits, or null", self.sha256)
        require(hexadecimal or "://" not in self.checkpoint, "sha256", "the checksum of the file at the address", self.sha256)


@dataclass(frozen=True)
class DetectionConfig(TrainConfig):
    """Configures the training of the detector.

    init: the checkpoint to start from; null starts from the backbone's weights. positions_std: the standard deviation of the
    initial values of learned positions. null initialises them uniformly between 0 and 1, as published; these values are so
    similar that a short training does not learn to distinguish positions. Detectors without learned positions ignore it.
    targets: boxes of `instances` (things), or of `panoptic` segments (things and stuff). loss: the loss of this kind of detector.
    """

    init: InitConfig | None
    positions_std: float | None
    targets: Literal["instances", "panoptic"]
    loss: AnyLossConfig

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.positions_std is None or self.positions_std > 0, "positions_std", "above 0, or null", self.positions_std)


def require_fit(detector: AnyDetectorConfig, training: DetectionConfig) -> None:
    """Raises ConfigError, which names the key and the kind, if this kind of detector does not support the training."""
    kind = kind_of(detector.kind)

    def fits(condition: bool, field: str, expected: str, value: object) -> None:
        require(condition, f"train_detection.{field}", f"{expected} with detector.kind {detector.kind!r}", value)

    fits(isinstance(training.loss, kind.loss), "loss.kind", repr(kind.loss.kind), training.loss.kind)
    optimizer = training.optimizer
    fits(optimizer.kind in kind.optimizers, "optimizer.kind", " or ".join(map(repr, kind.optimizers)), optimizer.kind)
    if isinstance(optimizer, OptimizerConfig):
        has_sampling_lr = "sampling_lr" in kind.capabilities
        expected = "a learning rate" if has_sampling_lr else "null"
        fits((optimizer.sampling_lr is not None) == has_sampling_lr, "optimizer.sampling_lr", expected, optimizer.sampling_lr)
    fits(training.init is None or "init" in kind.capabilities, "init", "null", training.init and training.init.checkpoint)
    panoptic = "panoptic" not in kind.capabilities or training.targets == "panoptic"
    fits(panoptic, "targets", "'panoptic' (things and stuff)", training.targets)


def _require_rates(lr: float, backbone_lr: float, weight_decay: float) -> None:
    require(lr > 0, "lr", "above 0", lr)
    require(backbone_lr >= 0, "backbone_lr", "0 or more", backbone_lr)
    require(weight_decay >= 0, "weight_decay", "0 or more", weight_decay)
