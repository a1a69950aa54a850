"""Transforms an image and its targets for the network: the published augmentation (paper, section A.4), with torchvision's
kernels, which transform boxes and masks together with the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from detr_core.config import require
from detr_core.data.config import AugmentationConfig, CropConfig, ResizeConfig

# An image (uint8 [3, H, W]), its boxes (tv_tensors.BoundingBoxes, xyxy) and masks (tv_tensors.Mask, or None).
Parts = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class Crop:
    """A crop of an image that is first resized to the (h, w) `before`; all in pixels."""

    before: tuple[int, int]
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Drawn:
    """What is done to one image, in this order. resize: the (h, w) of the result; None leaves the size as it is."""

    flip: bool
    crop: Crop | None
    resize: tuple[int, int] | None


class TrainingTransform:
    """Flips, crops and resizes an image in this order, as far as the configuration says.

    `rng` is the only source of randomness. After a crop an object may have an empty box or mask;
    `CocoDataset` drops such an object.
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config

    def __call__(self, image: Tensor, boxes: Tensor, masks: Tensor | None, rng: np.random.Generator) -> Parts:
        parts = (image, boxes, masks)
        height, width = image.shape[-2:]
        drawn = self._drawn((height, width), rng)
        if drawn.flip:
            parts = _on_each_part(parts, F.horizontal_flip)
        if drawn.crop is not None:
            parts = _cropped(_resized(parts, drawn.crop.before), drawn.crop)
        return parts if drawn.resize is None else _resized(parts, drawn.resize)

    def size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Returns the (h, w) that a call makes of an image of `size` (h, w), with the same random numbers."""
        drawn = self._drawn(size, rng)
        if drawn.resize is not None:
            return drawn.resize
        return size if drawn.crop is None else (drawn.crop.height, drawn.crop.width)

    def _drawn(self, size: tuple[int, int], rng: np.random.Generator) -> Drawn:
        # Draws all random numbers for an image of `size` (h, w). They depend on nothing else of the image.
        flip, crop, resize = self.config.flip, self.config.crop, self.config.resize
        flips = bool(rng.random() < flip)
        cut = None
        if crop is not None and rng.random() < crop.probability:
            cut = _drawn_crop(scaled(size, _one_of(crop.before, rng), None), crop, rng)
            size = (cut.height, cut.width)
        return Drawn(flips, cut, None if resize is None else scaled(size, _one_of(resize.short, rng), resize.longest))


class EvaluationTransform:
    """Resizes every image to `resize.short` (one size), or leaves it unchanged. The function `resized` returns the new size."""

    def __init__(self, resize: ResizeConfig | None) -> None:
        self.resize = resize
        if resize is not None:
            require(len(resize.short) == 1, "resize.short", "one size for evaluation", list(resize.short))

    def __call__(self, image: Tensor, boxes: Tensor, masks: Tensor | None, rng: np.random.Generator) -> Parts:
        height, width = image.shape[-2:]
        return (image, boxes, masks) if self.resize is None else _resized((image, boxes, masks), self.size((height, width), rng))

    def size(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
        """Returns the (h, w) that a call makes of an image of `size` (h, w). No random numbers are drawn."""
        return resized(size, self.resize)


Transform = TrainingTransform | EvaluationTransform


def training_transform(config: AugmentationConfig) -> TrainingTransform:
    """Returns the transform for training."""
    return TrainingTransform(config)


def evaluation_transform(resize: ResizeConfig | None) -> EvaluationTransform:
    """Returns the transform for validation and evaluation. Raises ConfigError if `resize.short` holds more than one size."""
    return EvaluationTransform(resize)


def resized(size: tuple[int, int], resize: ResizeConfig | None) -> tuple[int, int]:
    """Returns the (h, w) that an image of `size` (h, w) has at the network's input in evaluation."""
    return size if resize is None else scaled(size, resize.short[0], resize.longest)


def scaled(size: tuple[int, int], short: int, longest: int | None) -> tuple[int, int]:
    """Returns the (h, w) to which an image of `size` (h, w) is resized: its short side becomes `short`.

    The short side becomes smaller if the long side would exceed `longest`. The rounding is that of the published code, because
    the metrics of published weights depend on it.
    """
    low, high = min(size), max(size)
    if longest is not None and high / low * short > longest:
        short = max(1, round(longest * low / high))
    long = high if low == short else int(short * high / low)
    return (short, long) if size[0] <= size[1] else (long, short)


def _resized(parts: Parts, size: tuple[int, int]) -> Parts:
    image, boxes, masks = parts
    resized_image, resized_boxes = (F.resize(part, list(size), antialias=True) for part in (image, boxes))
    return resized_image, resized_boxes, None if masks is None else nearest(masks, size)


def nearest(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns masks [T, H, W] resized to `size` (h, w), with the same pixels as torch's nearest interpolation.

    It copies whole rows, which takes a tenth of the time.
    """
    rows, columns = (_sources(old, new) for old, new in zip(masks.shape[-2:], size, strict=True))
    pixels = masks.as_subclass(Tensor).numpy().take(columns, axis=2).take(rows, axis=1)
    return cast(Tensor, tv_tensors.wrap(torch.from_numpy(pixels), like=masks))


def _sources(old: int, new: int) -> npt.NDArray[np.intp]:
    # Returns the old index of each new pixel, computed in single precision as torch does.
    scale = np.float32(old) / np.float32(new)
    places = np.floor(np.arange(new, dtype=np.float32) * scale).astype(np.intp)
    return np.asarray(np.minimum(places, old - 1))


def _one_of(values: tuple[int, ...], rng: np.random.Generator) -> int:
    # Draws the same value as `rng.choice`, which takes twenty times as long because it first converts the values to an array.
    return values[int(rng.integers(len(values)))]


def _drawn_crop(before: tuple[int, int], config: CropConfig, rng: np.random.Generator) -> Crop:
    # The crop's sides are between `smallest` and `largest`, and at most those of the image, which are `before`.
    h, w = before
    height, width = (int(rng.integers(min(config.smallest, side), min(config.largest, side), endpoint=True)) for side in (h, w))
    top, left = int(rng.integers(h - height, endpoint=True)), int(rng.integers(w - width, endpoint=True))
    return Crop(before, top, left, height, width)


def _cropped(parts: Parts, crop: Crop) -> Parts:
    return _on_each_part(parts, lambda part: F.crop(part, crop.top, crop.left, crop.height, crop.width))


def _on_each_part(parts: Parts, kernel: Callable[[Any], Any]) -> Parts:
    image, boxes, masks = parts
    return kernel(image), kernel(boxes), None if masks is None else kernel(masks)
