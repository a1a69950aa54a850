"""Defines the configuration of evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from detr_core.config import require
from detr_core.data.config import ResizeConfig


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
class PanopticFpnMergingConfig:
    """Configures how Panoptic FPN merges its instances and its semantic segmentation into one panoptic map.

    The values are those of Detectron2. score: instances below it are dropped. overlap: an instance is dropped if more than this
    share of it is taken by instances of higher scores. stuff_area: stuff of a class with fewer free pixels than this is dropped.
    """

    score: float = 0.5
    overlap: float = 0.5
    stuff_area: int = 4096

    def __post_init__(self) -> None:
        require(0 <= self.score <= 1, "score", "a score between 0 and 1", self.score)
        require(0 <= self.overlap <= 1, "overlap", "a share between 0 and 1", self.overlap)
        require(self.stuff_area >= 0, "stuff_area", "0 or more pixels", self.stuff_area)


@dataclass(frozen=True)
class UpsnetMergingConfig:
    """Configures which instances and which stuff UPSNet's panoptic maps have.

    The values are those of its authors for COCO. score: instances need a score above it. overlap: an instance is dropped if more
    than this share of it lies on instances of its class with higher scores. stuff_area: stuff of a class with fewer pixels than
    this is dropped.
    """

    score: float = 0.6
    overlap: float = 0.3
    stuff_area: int = 4096

    def __post_init__(self) -> None:
        require(0 <= self.score <= 1, "score", "a score between 0 and 1", self.score)
        require(0 <= self.overlap <= 1, "overlap", "a share between 0 and 1", self.overlap)
        require(self.stuff_area >= 0, "stuff_area", "0 or more pixels", self.stuff_area)


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
        require(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)
