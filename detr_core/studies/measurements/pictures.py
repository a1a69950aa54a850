"""Selects the images of a dataset that a study stores, and writes them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch import Tensor

from detr_core.data.coco_dataset import CocoDataset


def save_picture(dataset: CocoDataset, index: int, folder: Path) -> str:
    """Writes the image with this index, at the size of the network's input, as PNG to `folder`. Returns its name."""
    name = f"image_{dataset.image_ids[index]}.png"
    Image.fromarray(dataset[index].image.permute(1, 2, 0).numpy()).save(folder / name)
    return name


def as_rows(attention: Tensor) -> list[list[float]]:
    """Returns an attention map as rows of numbers for a file. Five digits per number are enough to draw it."""
    return [[float(f"{value:.5g}") for value in row] for row in attention.tolist()]
