"""Configuration of the studies that only evaluate; training.py beside this file has that of those that train."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from detr_core.config import require
from detr_core.data.config import ResizeConfig


@dataclass(frozen=True)
class StudyConfig:
    """paper: the table, figure or section that the study makes again, or a word of what it is where the paper has none.

    KINDS: of detectors that it can be carried out on.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("detr", "deformable", "faster_rcnn")
    paper: str


@dataclass(frozen=True)
class DecoderNmsConfig(StudyConfig):
    """Figure 4 of the paper: AP of every decoder layer, without NMS and with it.

    nms: IoU thresholds; null stands for no NMS. batch_size and resize as in evaluation.
    """

    KINDS = ("detr", "deformable")
    nms: tuple[float | None, ...]
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        require(len(self.nms) > 0, "nms", "one or more thresholds", list(self.nms))
        require(len(set(self.nms)) == len(self.nms), "nms", "each threshold once", list(self.nms))
        for value in self.nms:
            require(value is None or 0 < value < 1, "nms", "null (off) or an IoU between 0 and 1", value)
        require(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)


@dataclass(frozen=True)
class InstanceCountConfig(StudyConfig):
    """Copies of one object in the cells of a grid, cells masked at random (section 4.3 and appendix of the paper).

    grid: cells a side. canvas: side of the square image, pixels, a multiple of grid. object_size: longer side of the object, as a
    share of its cell's. fill: RGB of a masked cell. classes: names of things, null for all. objects: so many of the val set's of
    each class take turns. repeats: masks drawn for every number of visible cells. score, iou: a cell is found by a detection of
    its class with at least this score and IoU. shown: an image of so many visible cells is kept. batch_size: images a pass.
    """

    KINDS = ("detr",)
    grid: int
    canvas: int
    object_size: float
    fill: tuple[int, int, int]
    classes: tuple[str, ...] | None
    objects: int
    repeats: int
    score: float
    iou: float
    shown: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("grid", "objects", "repeats", "batch_size"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        require(self.canvas >= 1 and self.canvas % self.grid == 0, "canvas", f"a multiple of grid {self.grid}", self.canvas)
        require(0 < self.object_size <= 1, "object_size", "a share above 0, at most 1", self.object_size)
        require(all(0 <= value <= 255 for value in self.fill), "fill", "three values of 0 to 255", list(self.fill))
        require(self.classes is None or len(self.classes) > 0, "classes", "null or one or more names", self.classes)
        require(0 <= self.score <= 1, "score", "between 0 and 1", self.score)
        require(0 < self.iou < 1, "iou", "an IoU between 0 and 1", self.iou)
        require(1 <= self.shown <= self.grid**2, "shown", f"1 to all {self.grid**2} cells", self.shown)


@dataclass(frozen=True)
class EncoderAttentionConfig(StudyConfig):
    """Figure 3 of the paper: where the last encoder layer's self-attention goes from chosen points of the image.

    pictures: so many val images, evenly spaced by id, are kept with the maps of `points` points each: the centres of their
    largest things. batch_size and resize as in evaluation.
    """

    KINDS = ("detr",)
    pictures: int
    points: int
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        for name in ("pictures", "points", "batch_size"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))


@dataclass(frozen=True)
class DecoderAttentionConfig(StudyConfig):
    """Figures 6 and 7 of the paper: where the last decoder layer looks for every object, and the boxes of every query.

    pictures: so many val images, evenly spaced by id, are kept with the maps of their detections. score: of a detection, at
    least. border: half the width of the band along a box that counts as its extremities, as a share of the box's sides.
    batch_size and resize as in evaluation.
    """

    KINDS = ("detr",)
    pictures: int
    score: float
    border: float
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        for name in ("pictures", "batch_size"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        require(0 <= self.score <= 1, "score", "between 0 and 1", self.score)
        require(0 < self.border < 0.5, "border", "a share between 0 and 0.5", self.border)


@dataclass(frozen=True)
class ScoringConfig(StudyConfig):
    """Section 4.1 of the paper: with and without empty-slot override, and detections below a score dropped.

    scores: thresholds, rising. batch_size and resize as in evaluation.
    """

    KINDS = ("detr",)
    scores: tuple[float, ...]
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        require(len(self.scores) > 0, "scores", "one or more thresholds", list(self.scores))
        rising = all(low < high for low, high in itertools.pairwise((-1.0, *self.scores, 1.0)))
        require(rising and min(self.scores) >= 0, "scores", "rising thresholds from 0 to below 1", list(self.scores))
        require(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)


EVALUATING: dict[str, type[StudyConfig]] = {
    "decoder-nms": DecoderNmsConfig,
    "instance-count": InstanceCountConfig,
    "encoder-attention": EncoderAttentionConfig,
    "decoder-attention": DecoderAttentionConfig,
    "scoring": ScoringConfig,
}
"""The studies that only evaluate; every other name in a profile is a study that trains."""
