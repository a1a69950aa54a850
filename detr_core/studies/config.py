"""Configuration of the studies that only evaluate. The module training.py configures the studies that train."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from detr_core.config import require
from detr_core.data.config import ResizeConfig
from detr_core.model.spec import Capability


@dataclass(frozen=True)
class StudyConfig:
    """The common part of the configuration of all studies.

    paper: the table, figure or section of the paper that the study reproduces, or a short description if the paper has none.
    NEEDS: the capabilities that a detector must have for this study.
    """

    NEEDS: ClassVar[tuple[Capability, ...]] = ()
    paper: str


@dataclass(frozen=True)
class DecoderNmsConfig(StudyConfig):
    """Figure 4 of the paper: AP of every decoder layer with and without NMS.

    nms: IoU thresholds; null means no NMS. batch_size, resize: see EvaluateConfig.
    """

    NEEDS = ("decoder_layers",)
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
    """Copies of one object in the cells of a grid with randomly masked cells (section 4.3 and appendix of the paper).

    grid: the number of cells per side. canvas: the side of the square image, pixels, a multiple of grid. object_size: the longer
    side of the object as a share of the cell's side. fill: the RGB colour of a masked cell. classes: the names of things, null
    for all things. objects: the number of objects of each class that are taken from the val set and used in turn. repeats: the
    number of random masks for each number of visible cells. score, iou: a cell is detected by a detection of its class with at
    least this score and IoU. shown: the number of visible cells of the example image. batch_size: images per forward pass.
    """

    NEEDS = ("no_object",)
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
    """Figure 3 of the paper: the last encoder layer's self-attention from the centres of objects.

    pictures: the number of val images, evenly spaced by id, that are stored with attention maps. points: the number of maps per
    image, which start at the centres of the largest things. batch_size, resize: see EvaluateConfig.
    """

    NEEDS = ("attention_maps",)
    pictures: int
    points: int
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        for name in ("pictures", "points", "batch_size"):
            require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))


@dataclass(frozen=True)
class DecoderAttentionConfig(StudyConfig):
    """Figures 6 and 7 of the paper: the last decoder layer's attention for every object, and the boxes of every query.

    pictures: the number of val images, evenly spaced by id, that are stored with the maps of their detections. score: the lowest
    score of a detection. border: half the width of the band along a box that counts as its extremities, as a share of the box's
    sides. batch_size, resize: see EvaluateConfig.
    """

    NEEDS = ("attention_maps",)
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
    """Section 4.1 of the paper: AP with and without empty-slot override, and without detections below a score.

    scores: thresholds in ascending order. batch_size, resize: see EvaluateConfig.
    """

    NEEDS = ("no_object",)
    scores: tuple[float, ...]
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        require(len(self.scores) > 0, "scores", "one or more thresholds", list(self.scores))
        rising = all(low < high for low, high in itertools.pairwise((-1.0, *self.scores, 1.0)))
        require(rising and min(self.scores) >= 0, "scores", "thresholds in ascending order, from 0 to below 1", list(self.scores))
        require(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)


EVALUATING: dict[str, type[StudyConfig]] = {
    "decoder-nms": DecoderNmsConfig,
    "instance-count": InstanceCountConfig,
    "encoder-attention": EncoderAttentionConfig,
    "decoder-attention": DecoderAttentionConfig,
    "scoring": ScoringConfig,
}
"""The studies that only evaluate, by name. Every other name in a profile is a study that trains."""
