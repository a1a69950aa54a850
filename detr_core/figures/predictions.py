"""Pictures of what a detector finds in images that have no ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from detr_core.data.images import read_image, read_segment_ids, upright_size
from detr_core.data.values import Ranges
from detr_core.figures.panoptic import overlay
from detr_core.figures.pictures import Color, as_picture, box, enlarged, save, scale_of, side_by_side, tag, text_size

_TINT = 0.45  # how much of a mask's colour covers the image


def prediction_picture(
    image: Path,
    detections: Sequence[Mapping[str, Any]],
    segments: tuple[Path, Sequence[Mapping[str, Any]]] | None,
    names: Mapping[int, str],
    colors: Mapping[int, Color],
    file: Path,
    ranges: Ranges | None,
) -> Path:
    """Draws one image with its detections, and beside it its panoptic map where there is one, into `file`.

    detections: COCO results with 'bbox' (xywh pixels), 'score', 'category_id' and, with a mask head, 'segmentation' (run-length).
    segments: the panoptic PNG and its segments_info. names, colors: by category id. ranges: the checkpoint's, see `read_image`.
    Raises DatasetError for an image or PNG that can't be read.
    """
    size = upright_size(image)
    picture = as_picture(read_image(image, size, ranges))
    panels, titles = [_drawn(picture, detections, names, colors)], ["detections"]
    if segments is not None:
        png, infos = segments
        plain = enlarged(picture, scale_of(picture))
        panels.append(overlay(plain, read_segment_ids(png, size), infos, names, colors))
        titles.append("panoptic")
    return save(side_by_side(titles, panels), file)


def _drawn(
    image: Image.Image, detections: Sequence[Mapping[str, Any]], names: Mapping[int, str], colors: Mapping[int, Color]
) -> Image.Image:
    pixels = np.array(image, dtype=np.float64)
    surest_last = sorted(detections, key=lambda each: float(each["score"]))
    for each in surest_last:
        if "segmentation" in each:
            mask = rle.decode(each["segmentation"]).astype(bool)
            pixels[mask] = (1 - _TINT) * pixels[mask] + _TINT * np.asarray(colors[each["category_id"]])
    scale = scale_of(image)
    panel = enlarged(Image.fromarray(pixels.round().astype(np.uint8)), scale)
    draw, size = ImageDraw.Draw(panel), text_size(panel, panels=2)
    for each in surest_last:
        x, y, width, height = (scale * length for length in each["bbox"])
        box(draw, (x, y, x + width, y + height), colors[each["category_id"]], line=max(2, size // 5))
    for each in surest_last:  # names after all boxes: no line runs through a name
        label, corner = f"{names[each['category_id']]} {each['score']:.2f}", (scale * each["bbox"][0], scale * each["bbox"][1])
        tag(draw, corner, label, colors[each["category_id"]], size, panel.size)
    return panel
