"""Defines the configuration of a dataset's splits and of the training's image augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from detr_core.config import require

LARGEST_SIDE = 65_535  # pixels; the largest side of a JPEG, so a larger number is a mistake
LARGEST_BATCH = 65_536


@dataclass(frozen=True)
class SplitConfig:
    """One split of a dataset folder, as paths below its root.

    images: the folder of images. instances: `instances_*.json`, or null; FolderConfig says what it is in other formats.
    panoptic: `panoptic_*.json`, or null. panoptic_masks: the folder of the panoptic PNGs, given exactly when `panoptic` is.
    """

    images: str
    instances: str | None
    panoptic: str | None
    panoptic_masks: str | None

    def __post_init__(self) -> None:
        has_annotations = self.instances is not None or self.panoptic is not None
        require(has_annotations, "instances", "that this key or `panoptic` is given", self.instances)
        require(
            (self.panoptic is None) == (self.panoptic_masks is None),
            "panoptic_masks",
            "that this key is given exactly when `panoptic` is",
            self.panoptic_masks,
        )


@dataclass(frozen=True)
class ResizeConfig:
    """Resizes the short side to one of `short` (drawn at random in training), but the long side to at most `longest`; pixels."""

    short: tuple[int, ...]
    longest: int

    def __post_init__(self) -> None:
        require(len(self.short) > 0 and min(self.short) > 0, "short", "one or more positive sizes", list(self.short))
        fits = max(self.short) <= self.longest <= LARGEST_SIDE
        require(fits, "longest", f"{max(self.short)} (the largest of `short`) to {LARGEST_SIDE:,} pixels", self.longest)


@dataclass(frozen=True)
class CropConfig:
    """With `probability`, resizes the short side to one of `before`, then crops at random with sides of `smallest` to `largest`.

    All sizes are in pixels.
    """

    probability: float
    before: tuple[int, ...]
    smallest: int
    largest: int

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "probability", "between 0 and 1", self.probability)
        fits = len(self.before) > 0 and min(self.before) > 0 and max(self.before) <= LARGEST_SIDE
        require(fits, "before", f"one or more sizes of 1 to {LARGEST_SIDE:,} pixels", list(self.before))
        require(0 < self.smallest <= self.largest, "smallest", "between 1 and `largest`", self.smallest)
        require(self.largest <= LARGEST_SIDE, "largest", f"at most {LARGEST_SIDE:,} pixels", self.largest)


@dataclass(frozen=True)
class AugmentationConfig:
    """The training augmentation in this order: flip, crop, resize (section A.4 of the paper). null omits a step.

    flip: probability of a horizontal flip.
    """

    flip: float
    crop: CropConfig | None
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        require(0 <= self.flip <= 1, "flip", "a probability between 0 and 1", self.flip)
