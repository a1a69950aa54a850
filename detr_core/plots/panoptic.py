"""Draws pictures of panoptic maps: the image, its ground truth and the prediction, with tinted and outlined segments."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from detr_core.data.images import read_pixels, read_segment_ids
from detr_core.data.splits import Split, below_root
from detr_core.plots.pictures import (
    Color,
    caption,
    category_colors,
    enlarged,
    save,
    scale_of,
    side_by_side,
    text_size,
)
from detr_core.sampling import evenly_spaced

_TINT = 0.62  # opacity of a segment's colour over the image
_NAMED = 0.012  # share of the image from which a segment is labelled with its name
_SHADES = (0.0, 0.35, -0.3, 0.55, -0.5, 0.18, -0.15)  # objects of a class are lighter (above 0) or darker


class PanopticTruth:
    """The panoptic ground truth of a split, and the panels of its images.

    names, colors: category id -> name and colour. The split must have panoptic ground truth.
    """

    def __init__(self, split: Split) -> None:
        assert split.panoptic is not None
        assert split.panoptic_masks is not None
        self.split, self.file, self.masks = split, split.panoptic, split.panoptic_masks
        truth = json.loads(self.file.read_bytes())
        self.names = {category["id"]: category["name"] for category in truth["categories"]}
        self.colors = category_colors(self.names)
        self.images = {image["id"]: image for image in truth["images"]}
        self.annotations = {entry["image_id"]: entry for entry in truth["annotations"]}

    def image(self, image_id: int) -> Image.Image:
        """Returns the image as a panel. Raises DatasetError if it can't be read."""
        entry = self.images[image_id]
        file = below_root(self.split.images, entry["file_name"], f"{self.file}: images.file_name")
        image = Image.fromarray(read_pixels(file, self._size(image_id), self.split.value_ranges))
        return enlarged(image, scale_of(image))

    def map(self, panel: Image.Image, image_id: int, predicted: Prediction | None = None) -> Image.Image:
        """Returns a panel of the image with the segments of its ground truth, or of a prediction.

        Raises DatasetError if their PNG can't be read.
        """
        folder = self.masks if predicted is None else predicted.folder
        annotation = (self.annotations if predicted is None else predicted.annotations)[image_id]
        file = below_root(folder, annotation["file_name"], f"{folder}.json: annotations.file_name")
        ids = np.asarray(read_segment_ids(file, self._size(image_id)))
        return overlay(panel, ids, annotation["segments_info"], self.names, self.colors)

    def _size(self, image_id: int) -> tuple[int, int]:
        return self.images[image_id]["height"], self.images[image_id]["width"]


class Prediction:
    """The panoptic maps of an evaluation. evaluation: its folder, with `panoptic.json` and `panoptic/*.png`."""

    def __init__(self, evaluation: Path) -> None:
        self.file, self.folder = evaluation / "panoptic.json", evaluation / "panoptic"
        self.annotations = {entry["image_id"]: entry for entry in json.loads(self.file.read_bytes())["annotations"]}


def panoptic_pictures(split: Split, evaluation: Path, folder: Path, count: int) -> list[Path]:
    """Draws `count` images of the split, evenly spaced by id, into `folder` as panoptic_<image id>.jpg.

    evaluation: the folder with `panoptic.json` and `panoptic/*.png` in COCO's panoptic format. A class has one colour, and its
    objects have shades of that colour; void pixels show the dimmed image. Returns the files written, in the order of image ids,
    or an empty list for a split without panoptic ground truth. Raises DatasetError for an image or PNG that can't be read.
    """
    if split.panoptic is None:
        return []
    truth, predicted = PanopticTruth(split), Prediction(evaluation)
    image_ids = sorted(truth.images.keys() & truth.annotations.keys() & predicted.annotations.keys())
    written = []
    for position in evenly_spaced(len(image_ids), count):
        image_id = image_ids[position]
        panel = truth.image(image_id)
        panels = [panel, truth.map(panel, image_id), truth.map(panel, image_id, predicted)]
        written.append(save(side_by_side(("image", "ground truth", "prediction"), panels), folder / f"panoptic_{image_id}.jpg"))
    return written


def overlay(
    panel: Image.Image,
    ids: NDArray[np.int32],
    segments: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    colors: Mapping[int, Color],
) -> Image.Image:
    """Returns `panel` with its segments tinted, outlined and named.

    ids [H, W]: the segment id of each pixel, in any size. names, colors: category id -> name and colour.
    """
    enlarged_ids = np.asarray(Image.fromarray(ids).resize(panel.size, Image.Resampling.NEAREST))
    pixels = 0.4 * np.asarray(panel, dtype=np.float64)
    original = np.asarray(panel, dtype=np.float64)
    drawn_counts: Counter[int] = Counter()
    for segment in segments:
        mask, category = enlarged_ids == segment["id"], segment["category_id"]
        pixels[mask] = (1 - _TINT) * original[mask] + _TINT * _shade(colors[category], drawn_counts[category])
        drawn_counts[category] += 1
    pixels[_edges(enlarged_ids)] = 255
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for segment in segments:
        mask = enlarged_ids == segment["id"]
        if mask.mean() >= _NAMED:
            caption(draw, _middle(mask), names[segment["category_id"]], text_size(panel, panels=3), panel.width)
    return picture


def _shade(color: Color, position: int) -> NDArray[np.float64]:
    amount = _SHADES[position % len(_SHADES)]
    target = 255.0 if amount > 0 else 0.0
    return np.asarray(color, dtype=np.float64) * (1 - abs(amount)) + target * abs(amount)


def _edges(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    edges = np.zeros(ids.shape, dtype=np.bool_)
    edges[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    edges[1:, :] |= ids[1:, :] != ids[:-1, :]
    return edges


def _middle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Returns a point (x, y) inside the mask: the middle of the longest run in the mask's median row."""
    rows = np.nonzero(mask)[0]
    row = int(np.median(rows))
    if not mask[row].any():
        row = int(rows[np.abs(rows - row).argmin()])
    padded = np.concatenate(([False], mask[row], [False]))
    starts, ends = np.flatnonzero(~padded[:-1] & padded[1:]), np.flatnonzero(padded[:-1] & ~padded[1:])
    longest = int((ends - starts).argmax())
    return (int(starts[longest]) + int(ends[longest])) / 2, float(row)
