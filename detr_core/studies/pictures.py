"""Which images of a dataset a study keeps, and in what form."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from detr_core.data.coco import CocoDataset


def spread(images: int, count: int) -> list[int]:
    """The places of `count` images (or all, if there are fewer), evenly spaced, so that nobody picked the good ones."""
    count = min(count, images)
    return [place * images // count for place in range(count)]


def save_picture(dataset: CocoDataset, place: int, folder: Path) -> str:
    """Writes the image at this place, as the network sees it, to `folder` as a PNG; returns its name."""
    name = f"image_{dataset.image_ids[place]}.png"
    Image.fromarray(dataset[place].image.permute(1, 2, 0).numpy()).save(folder / name)
    return name


def as_rows(attention: Tensor) -> list[list[float]]:
    """A map for a file: five digits of each number are enough to draw it."""
    return [[float(f"{value:.5g}") for value in row] for row in attention.tolist()]
