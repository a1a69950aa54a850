"""The ground truth of a split that average precision is measured against."""

from __future__ import annotations

import json
from pathlib import Path

from hotcoco import COCO

from detr_core.data.annotations import read_annotations
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


def require_objects(split: Split) -> None:
    """Raises DatasetError where an annotation file of the split has no object to learn from or to score against.

    Crowds do not count: training leaves them out, and average precision is not defined without other objects.
    """
    for targets in ("instances", "panoptic"):
        file: Path | None = getattr(split, targets)
        if file is None:
            continue
        found = read_annotations(split, targets, masks=False)
        if len(found.labels) == 0:
            left_out = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in found.left_out.items())
            raise DatasetError(
                f"{split.name} split, {file}: nothing to learn from: expected an object that is not marked as a crowd, "
                f"found none in {len(found.image_ids):,} images ({left_out}); correct the annotations"
            )


def require_scorable(split: Split) -> None:
    """Raises DatasetError where the average precision of boxes cannot be computed on the split; else it can."""
    truth = instances(split)
    if all(annotation.get("iscrowd", 0) or annotation.get("ignore", 0) for annotation in truth.load_anns(truth.get_ann_ids())):
        raise DatasetError(
            f"{split.name} split, {split.instances or split.panoptic}: average precision cannot be computed: expected an object "
            "of a thing that is not marked as a crowd, found none; correct the annotations"
        )


def has_masks(truth: COCO) -> bool:
    """Whether masks can be scored against it: a file of boxes alone would give every mask 0."""
    return any(annotation.get("segmentation") for annotation in truth.load_anns(truth.get_ann_ids()[:1]))
