"""Reads the ground truth that predictions are scored against: the part of an annotation file that scoring needs.

hotcoco parses a whole file strictly, but exporters write the year as text, licences without a name, or annotation ids as text.
Scoring needs none of these, so this module passes only images, annotations and categories to hotcoco.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hotcoco import COCO

from detr_core.data import fields
from detr_core.data.annotation_reader import read_annotations
from detr_core.data.splits import DatasetError, Split
from detr_core.evaluate.areas import scored_area


def instances(split: Split) -> COCO:
    """Returns the instances of a split: its instances file, or the thing segments of its panoptic file, which have boxes only.

    Raises DatasetError for a file that can't be scored against, even if a training can use it.
    """
    if split.instances is not None:
        return read_instances(split.instances)
    assert split.panoptic is not None  # a split has at least one of the two
    return _scorable(split.panoptic, _things)


def read_instances(file: Path) -> COCO:
    """Returns the instances in an `instances_*.json`, including crowds. Raises DatasetError as `instances` does."""
    return _scorable(file, lambda content: content)


def read_panoptic(file: Path) -> dict[str, Any]:
    """Returns the content of a `panoptic_*.json` that panoptic quality needs. Raises DatasetError as `instances` does."""
    content = fields.read_content(file)
    return {
        "images": list(_images(file, content).values()),
        "annotations": fields.checked(file, "annotations", lambda: [_segments(entry) for entry in content["annotations"]]),
        "categories": [
            {"id": number, "name": name, "isthing": int(isthing)} for number, name, isthing in _categories(file, content)
        ],
    }


def require_objects(split: Split) -> None:
    """Raises DatasetError if an annotation file of the split has no object to learn from or to score against.

    Crowds do not count, because training leaves them out and average precision is not defined without other objects.
    """
    for targets in ("instances", "panoptic"):
        file: Path | None = getattr(split, targets)
        if file is None:
            continue
        annotations = read_annotations(split, targets, masks=False)
        if len(annotations.labels) == 0:
            others = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in annotations.not_trained_on.items())
            raise DatasetError(
                f"{split.name} split, {file}: nothing to learn from: expected an object that is not marked as a crowd, "
                f"found none in {len(annotations.image_ids):,} images ({others}); correct the annotations"
            )


def require_scorable(split: Split) -> None:
    """Raises DatasetError if the average precision of boxes can't be computed on the split."""
    truth = instances(split)
    if all(annotation.get("iscrowd", 0) or annotation.get("ignore", 0) for annotation in truth.load_anns(truth.get_ann_ids())):
        raise DatasetError(
            f"{split.name} split, {split.instances or split.panoptic}: average precision cannot be computed: expected an object "
            "of a thing that is not marked as a crowd, found none; correct the annotations"
        )


def has_masks(truth: COCO) -> bool:
    """Returns whether masks can be scored, which requires that every object except crowds has a mask."""
    objects = [entry for entry in truth.load_anns(truth.get_ann_ids()) if not entry.get("iscrowd")]
    return bool(objects) and all(entry.get("segmentation") for entry in objects)


def _scorable(file: Path, select: Callable[[dict[str, Any]], dict[str, Any]]) -> COCO:
    content = fields.read_content(file)
    try:
        content = select(content)
        images = _images(file, content)
        annotations = fields.checked(file, "annotations", lambda: list(_annotations(content["annotations"], images)))
        categories = [{"id": number, "name": name} for number, name, _ in _categories(file, content)]
        return COCO({"images": list(images.values()), "annotations": annotations, "categories": categories})
    except DatasetError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{file}: expected annotations to score against: {error}") from None


def _images(file: Path, content: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Returns image id -> image entry, in the file's order."""

    def read() -> dict[int, dict[str, Any]]:
        return {
            fields.whole(image["id"]): {
                "id": fields.whole(image["id"]),
                "file_name": fields.text(image["file_name"]),
                "height": fields.side(image["height"]),
                "width": fields.side(image["width"]),
            }
            for image in content["images"]
        }

    images = fields.checked(file, "images", read)
    if len(images) < len(content["images"]):
        raise DatasetError(f"{file}: images: expected every id once, found an id twice")
    return images


def _categories(file: Path, content: dict[str, Any]) -> list[tuple[int, str, bool]]:
    return fields.checked(file, "categories", lambda: fields.category_list(content["categories"]))


def _annotations(entries: list[dict[str, Any]], images: dict[int, dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Yields the annotations in the file's order, numbered from 1.

    The file's ids are not used, because they may be text, and ids of segments are unique only within an image.
    """
    for number, entry in enumerate(entries, start=1):
        image = images[fields.whole(entry["image_id"])]
        segmentation = {"segmentation": entry["segmentation"]} if entry.get("segmentation") else {}
        yield {
            "id": number,
            "image_id": image["id"],
            "category_id": fields.whole(entry["category_id"]),
            "bbox": _box(entry["bbox"]),
            "area": scored_area(entry, (image["height"], image["width"])),
            "iscrowd": int(fields.flag(entry.get("iscrowd", 0))),
            **segmentation,
        }


def _box(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4 or any(type(side) not in (int, float) for side in value):
        raise ValueError(f"expected `bbox` of 4 numbers, found {value!r:.60}")
    return [float(side) for side in value]


def _things(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the thing segments of a panoptic file as instances."""
    categories = [category for category in content["categories"] if category.get("isthing", 1)]
    things = {category["id"] for category in categories}
    annotations = [
        {**segment, "image_id": entry["image_id"]}
        for entry in content["annotations"]
        for segment in entry["segments_info"]
        if segment["category_id"] in things
    ]
    return {"images": content["images"], "annotations": annotations, "categories": categories}


def _segments(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "image_id": fields.whole(entry["image_id"]),
        "file_name": fields.text(entry["file_name"]),
        "segments_info": [
            {
                "id": fields.segment_id(segment["id"]),
                "category_id": fields.whole(segment["category_id"]),
                "iscrowd": int(fields.flag(segment.get("iscrowd", 0))),
            }
            for segment in entry["segments_info"]
        ],
    }
