"""Pictures of detections: the ground truth on the left, what the detector says on the right."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from detr_core.data.annotations import Annotations, read_annotations
from detr_core.data.dataset import Split
from detr_core.data.images import read_image
from detr_core.figures.pictures import (
    Color,
    as_picture,
    box,
    category_colors,
    chosen,
    enlarged,
    save,
    scale_of,
    side_by_side,
    tag,
    text_size,
)

SHOWN_SCORE = 0.5  # detections below it are not drawn; AP counts them all the same


@dataclass(frozen=True)
class _Box:
    """corners: xyxy, pixels of the image."""

    corners: tuple[float, float, float, float]
    label: str
    color: Color


def detection_pictures(split: Split, evaluation: Path, folder: Path, count: int) -> list[Path]:
    """Draws `count` images of the split, evenly spaced by id, into `folder` as detection_<image id>.jpg.

    evaluation: folder with `bbox.json`, COCO results with xywh boxes in pixels of the image. Detections of SHOWN_SCORE and
    above are drawn with their score; the ground truth without crowds. Returns the files written, in the order of image ids.
    Raises DatasetError for annotations or images that can't be read.
    """
    truth = read_annotations(split, "panoptic" if split.instances is None else "instances", masks=False)
    things = {category.id: category.name for category in truth.categories if category.isthing}
    colors = category_colors(things)
    found: dict[int, list[_Box]] = defaultdict(list)
    results = json.loads((evaluation / "bbox.json").read_bytes())
    for result in sorted(results, key=lambda result: float(result["score"])):  # the surest is drawn last, on top
        if result["score"] >= SHOWN_SCORE and (category := result["category_id"]) in things:
            x, y, width, height = result["bbox"]
            label = f"{things[category]} {result['score']:.2f}"
            found[result["image_id"]].append(_Box((x, y, x + width, y + height), label, colors[category]))
    written = []
    for position in chosen(len(truth.image_ids), count):
        image_id = truth.image_ids[position]
        image = as_picture(read_image(truth.files[position], truth.sizes[position], truth.value_ranges))
        panels = [_drawn(image, _actual(truth, position, colors)), _drawn(image, found[image_id])]
        picture = side_by_side(("ground truth", f"prediction, score {SHOWN_SCORE:g} and above"), panels)
        written.append(save(picture, folder / f"detection_{image_id}.jpg"))
    return written


def _actual(truth: Annotations, position: int, colors: dict[int, Color]) -> list[_Box]:
    objects = slice(truth.first[position], truth.first[position + 1])
    categories = [truth.categories[label] for label in truth.labels[objects]]
    boxes = zip(truth.boxes[objects].tolist(), categories, strict=True)
    return [_Box(tuple(box), category.name, colors[category.id]) for box, category in boxes if category.isthing]


def _drawn(image: Image.Image, boxes: Sequence[_Box]) -> Image.Image:
    scale = scale_of(image)
    panel = enlarged(image, scale)
    draw = ImageDraw.Draw(panel)
    size = text_size(panel, panels=2)
    for each in boxes:
        x1, y1, x2, y2 = (scale * corner for corner in each.corners)
        box(draw, (x1, y1, x2, y2), each.color, line=max(2, size // 5))
    for each in boxes:  # names after all boxes: no line runs through a name
        tag(draw, (scale * each.corners[0], scale * each.corners[1]), each.label, each.color, size, panel.size)
    return panel
