"""Defines the configuration of the study instance-count, which every command reads."""

from __future__ import annotations

from dataclasses import dataclass

from detr_core.config import require
from detr_core.studies.study import StudyConfig


@dataclass(frozen=True)
class InstanceCountConfig(StudyConfig):
    """Configures the images of the study: copies of one object on a grid with randomly masked cells (section 4.3, appendix).

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
