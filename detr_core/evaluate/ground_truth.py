"""The ground truth of a split that average precision is measured against."""

from __future__ import annotations

import json

from hotcoco import COCO

from detr_core.data.dataset import DatasetError, Split


def instances(split: Split) -> COCO:
    """The instances of a split: its instances file, or the thing segments of its panoptic file, which give boxes alone.

    Raises DatasetError for a file that can't be scored against, though it may train.
    """
    try:
        return _instances(split)
    except (ValueError, KeyError, TypeError) as error:
        file = split.instances or split.panoptic
        raise DatasetError(f"{file}: expected annotations to score against, found {error}") from None


def _instances(split: Split) -> COCO:
    if split.instances is not None:
        return COCO(str(split.instances))
    assert split.panoptic is not None  # a split has one or the other
    content = json.loads(split.panoptic.read_text(encoding="utf-8"))
    things = {category["id"] for category in content["categories"] if category.get("isthing", 1)}
    segments = [
        (image["image_id"], segment)
        for image in content["annotations"]
        for segment in image["segments_info"]
        if segment["category_id"] in things
    ]
    # Segment ids are unique in an image only, COCO wants them unique in the file.
    annotations = [{**segment, "id": i, "image_id": image_id} for i, (image_id, segment) in enumerate(segments, start=1)]
    categories = [category for category in content["categories"] if category["id"] in things]
    return COCO({"images": content["images"], "annotations": annotations, "categories": categories})


def has_masks(truth: COCO) -> bool:
    """Whether masks can be scored against it: a file of boxes alone would give every mask 0."""
    return any(annotation.get("segmentation") for annotation in truth.load_anns(truth.get_ann_ids()[:1]))
