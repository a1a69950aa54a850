"""Draws pictures of detections: the ground truth on the left, the detections on the right."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from detr_core.data.annotation_reader import read_annotations
from detr_core.data.annotations import Annotations
from detr_core.data.images import read_pixels
from detr_core.data.splits import Split
from detr_core.plots.pictures import (
    Color,
    LabelledBox,
    category_colors,
    draw_boxes,
    enlarged,
    save,
    scale_of,
    side_by_side,
    text_size,
    with_legend,
)
from detr_core.sampling import evenly_spaced

SHOWN_SCORE = 0.5  # detections below this score are not drawn, although AP counts them


def detection_pictures(split: Split, evaluation: Path, folder: Path, count: int) -> list[Path]:
    """Draws `count` images of the split, evenly spaced by id, into `folder` as detection_<image id>.jpg.

    evaluation: folder with `bbox.json`, COCO results with xywh boxes in pixels of the image. Detections of SHOWN_SCORE and
    above are drawn with their score where a tag fits; a legend names the colours. The ground truth is drawn without crowds.
    Returns the files written, in the order of image ids.
    Raises DatasetError for annotations or images that can't be read.
    """
    truth = read_annotations(split, "panoptic" if split.instances is None else "instances", masks=False)
    things = {category.id: category.name for category in truth.categories if category.isthing}
    colors = category_colors(things)
    detections: dict[int, list[LabelledBox]] = defaultdict(list)
    results = json.loads((evaluation / "bbox.json").read_bytes())
    for result in sorted(results, key=lambda result: float(result["score"])):  # the highest score is drawn last, on top
        if result["score"] >= SHOWN_SCORE and (category := result["category_id"]) in things:
            x, y, width, height = result["bbox"]
            label = f"{things[category]} {result['score']:.2f}"
            detections[result["image_id"]].append(LabelledBox((x, y, x + width, y + height), label, colors[category], category))
    written = []
    for index in evenly_spaced(len(truth.image_ids), count):
        image_id = truth.image_ids[index]
        image = Image.fromarray(read_pixels(truth.files[index], truth.sizes[index], truth.value_ranges))
        truth_boxes = _truth_boxes(truth, index, colors)
        panels = [_panel(image, truth_boxes), _panel(image, detections[image_id])]
        picture = side_by_side(("ground truth", f"prediction, score {SHOWN_SCORE:g} and above"), panels)
        categories = {box.category for box in (*truth_boxes, *detections[image_id])}
        legend = {things[category]: colors[category] for category in sorted(categories)}
        picture = with_legend(picture, legend, text_size(panels[0], panels=2))
        written.append(save(picture, folder / f"detection_{image_id}.jpg"))
    return written


def _truth_boxes(truth: Annotations, position: int, colors: dict[int, Color]) -> list[LabelledBox]:
    objects = slice(truth.first[position], truth.first[position + 1])
    categories = [truth.categories[label] for label in truth.labels[objects]]
    boxes = zip(truth.boxes[objects].tolist(), categories, strict=True)
    return [
        LabelledBox(tuple(box), category.name, colors[category.id], category.id) for box, category in boxes if category.isthing
    ]


def _panel(image: Image.Image, boxes: Sequence[LabelledBox]) -> Image.Image:
    panel = enlarged(image, scale_of(image))
    draw_boxes(panel, boxes, scale_of(image), text_size(panel, panels=2))
    return panel
