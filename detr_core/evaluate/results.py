"""Converts the detections of one image to COCO's results: category ids, xywh boxes, run-length masks and panoptic PNGs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor

from detr_core.evaluate.boxes import Detections
from detr_core.evaluate.inference import Classes
from detr_core.structures import Segment


def things_only(detections: Detections, classes: Classes) -> Detections:
    """Returns the detections that COCO's average precision counts: those of thing categories of the dataset."""
    return detections.chosen(classes.thing[detections.labels])


def result_rows(detections: Detections, image_id: int | np.ndarray, classes: Classes) -> np.ndarray:
    """Returns detections, which must be on the CPU, as float64 [N, 7]: image id, x, y, w, h (pixels), score, category id.

    image_id: the image of all detections, or an array [N] with the image of each detection.
    """
    rows = np.empty((len(detections.scores), 7))
    boxes = detections.boxes.double().numpy()
    rows[:, 0] = image_id
    rows[:, 1:3] = boxes[:, :2]
    rows[:, 3:5] = boxes[:, 2:] - boxes[:, :2]
    rows[:, 5] = detections.scores.numpy()
    rows[:, 6] = classes.ids[detections.labels.numpy()]
    return rows


def box_results(rows: np.ndarray) -> list[dict[str, Any]]:
    """Returns the entries of a results file for the rows of `result_rows`."""
    return [
        {"image_id": int(image), "category_id": int(category), "bbox": box, "score": score}
        for image, *box, score, category in rows.tolist()
    ]


def mask_results(detections: Detections, masks: Tensor, image_id: int, classes: Classes) -> list[dict[str, Any]]:
    """Returns the entries of a results file for detections with masks, bool [N, h, w] of the original image.

    The entries have no boxes, because COCO's evaluation would take the area of an object from its box.
    """
    ids = classes.ids[detections.labels.numpy()].tolist()
    return [
        {"image_id": image_id, "category_id": category, "segmentation": code, "score": score}
        for code, category, score in zip(run_lengths_of(masks), ids, detections.scores.tolist(), strict=True)
    ]


def run_lengths_of(masks: Tensor) -> list[dict[str, Any]]:
    """Returns masks, bool [N, h, w], in COCO's compressed run-length encoding: {'size': [h, w], 'counts': text}."""
    codes = rle.encode(np.asfortranarray(masks.byte().permute(1, 2, 0).cpu().numpy()))
    return [{"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")} for code in codes]


def panoptic_result(
    id_map: np.ndarray, segments: Sequence[Segment], image_id: int, classes: Classes, folder: Path
) -> dict[str, Any]:
    """Writes the PNG of a panoptic map to `folder` and returns its annotation.

    id_map: the id of the segment of each pixel, -1 for a pixel of no segment; without segments its values have no meaning.
    In the file ids start at 1, because 0 means that a pixel belongs to no segment.
    """
    file_ids = (id_map + 1 if segments else np.zeros_like(id_map)).astype("<u4")
    colors = file_ids.view(np.uint8).reshape(*id_map.shape, 4)[..., :3]  # red is the lowest byte of an id
    name = f"{image_id:012d}.png"
    Image.fromarray(np.ascontiguousarray(colors)).save(folder / name, compress_level=1)
    infos = [
        {**segment, "id": segment["id"] + 1, "category_id": int(classes.ids[segment["category_id"]])} for segment in segments
    ]
    return {"image_id": image_id, "file_name": name, "segments_info": infos}
