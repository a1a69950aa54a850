"""Defines the configuration of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require, require_between
from detr_core.data.config import LARGEST_BATCH, ResizeConfig
from detr_core.model.panoptic_fpn.config import PanopticFpnMergingConfig
from detr_core.model.upsnet.config import UpsnetMergingConfig


@dataclass(frozen=True)
class MergingConfig:
    """Configures how the masks of the queries are merged into one panoptic map (section 4.4 of the paper).

    threshold: queries below this score are dropped. smallest: segments of this number of pixels or fewer are dropped.
    mode: `published` merges the masks of a stuff class as the published code does, which undoes the merging when a small segment
    is removed afterwards. `paper` always merges them, as the paper describes.
    """

    threshold: float
    smallest: int
    mode: Literal["published", "paper"]

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, "threshold", "a score between 0 and 1", self.threshold)
        require(self.smallest >= 0, "smallest", "0 or more pixels", self.smallest)


@dataclass(frozen=True)
class MultiScaleConfig:
    """Configures multi-scale testing: a semantic segmentation is the mean over several sizes of the image.

    scales: the sizes, relative to the size that `resize` gives the image. flip: whether the mirror images of all sizes count,
    too.
    """

    scales: tuple[float, ...]
    flip: bool

    def __post_init__(self) -> None:
        scales = list(self.scales)
        good = len(scales) > 0 and min(scales) > 0 and len(set(scales)) == len(scales)
        require(good, "scales", "one or more different numbers above 0", scales)


@dataclass(frozen=True)
class EvaluateConfig:
    """Configures the evaluation of the val split.

    batch_size: the number of images per forward pass, which have the same size. resize: null leaves images unchanged.
    empty_slot_override: for queries whose best class is no-object, score the second-best class (section 4.1 of the paper).
    panoptic: the merging of the masks of DETR. panoptic_fpn, upsnet: the merging of the detectors of these kinds, as published if
    it is not given. multi_scale: for the kinds that segment the image semantically; null for one size.
    """

    batch_size: int
    resize: ResizeConfig | None
    empty_slot_override: bool
    panoptic: MergingConfig
    panoptic_fpn: PanopticFpnMergingConfig = field(default=PanopticFpnMergingConfig(), metadata={"optional": True})
    upsnet: UpsnetMergingConfig = field(default=UpsnetMergingConfig(), metadata={"optional": True})
    multi_scale: MultiScaleConfig | None = field(default=None, metadata={"optional": True})

    def __post_init__(self) -> None:
        require_between(1, LARGEST_BATCH, "batch_size", self.batch_size)
