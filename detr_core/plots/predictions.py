"""Draws pictures of a detector's predictions for images without ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from detr_core.data.images import read_pixels, read_segment_ids, upright_size
from detr_core.data.values import Ranges
from detr_core.plots.panoptic import overlay
from detr_core.plots.pictures import (
    Color,
    LabelledBox,
    draw_boxes,
    enlarged,
    save,
    scale_of,
    side_by_side,
    text_size,
    with_legend,
)

_TINT = 0.45  # opacity of a mask's colour over the image


def prediction_picture(
    image: Path,
    detections: Sequence[Mapping[str, Any]],
    segments: tuple[Path, Sequence[Mapping[str, Any]]] | None,
    names: Mapping[int, str],
    colors: Mapping[int, Color],
    file: Path,
    ranges: Ranges | None,
) -> Path:
    """Draws one image with its detections, and beside it its panoptic map if there is one, into `file`. Returns `file`.

    detections: COCO results with 'bbox' (xywh, pixels), 'score', 'category_id' and, with a mask head, 'segmentation' (RLE).
    segments: the panoptic PNG and its segments_info. names, colors: category id -> name and colour. ranges: the checkpoint's
    ranges for images of more than 8 bits per value, see `read_pixels`. Raises DatasetError for an unreadable image or PNG.
    """
    size = upright_size(image)
    picture = Image.fromarray(read_pixels(image, size, ranges))
    panels, titles = [_panel(picture, detections, names, colors)], ["detections"]
    if segments is not None:
        png, infos = segments
        plain = enlarged(picture, scale_of(picture))
        panels.append(overlay(plain, read_segment_ids(png, size), infos, names, colors))
        titles.append("panoptic")
    categories = sorted({result["category_id"] for result in detections})
    legend = {names[category]: colors[category] for category in categories}
    return save(with_legend(side_by_side(titles, panels), legend, text_size(panels[0], panels=2)), file)


def _panel(
    image: Image.Image, detections: Sequence[Mapping[str, Any]], names: Mapping[int, str], colors: Mapping[int, Color]
) -> Image.Image:
    pixels = np.array(image, dtype=np.float64)
    by_score = sorted(detections, key=lambda detection: float(detection["score"]))
    for detection in by_score:
        if "segmentation" in detection:
            mask = rle.decode(detection["segmentation"]).astype(bool)
            pixels[mask] = (1 - _TINT) * pixels[mask] + _TINT * np.asarray(colors[detection["category_id"]])
    scale = scale_of(image)
    panel = enlarged(Image.fromarray(pixels.round().astype(np.uint8)), scale)
    boxes = []
    for detection in by_score:
        (x, y, width, height), category = detection["bbox"], detection["category_id"]
        label = f"{names[category]} {detection['score']:.2f}"
        boxes.append(LabelledBox((x, y, x + width, y + height), label, colors[category], category))
    draw_boxes(panel, boxes, scale, text_size(panel, panels=2))
    return panel
