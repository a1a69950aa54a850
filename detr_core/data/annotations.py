"""COCO's two annotation files, `instances_*.json` and `panoptic_*.json`, as checked arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from detr_core.data.dataset import DatasetError, Split, below_root
from detr_core.data.masks import InstanceMasks, Masks, PanopticMasks
from detr_core.structures import Category

V = TypeVar("V")


@dataclass(frozen=True)
class Annotations:
    """What an annotation file says, crowds and degenerate boxes left out.

    categories: sorted by id. image_ids: sorted; files, sizes ((h, w)) in that order, images without objects included.
    The objects of image i are those numbered first[i] to first[i + 1].
    labels [objects]: class index. boxes [objects, 4]: float32, xyxy pixels, clipped to the image.
    masks: of the objects, None where they were not asked for.
    """

    categories: tuple[Category, ...]
    image_ids: list[int]
    files: list[Path]
    sizes: list[tuple[int, int]]
    first: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    masks: Masks | None


def read_annotations(split: Split, targets: Literal["instances", "panoptic"], masks: bool) -> Annotations:
    """The objects of `split`: instances, or panoptic segments (things and stuff).

    Raises DatasetError, which names the file and the field, for a file that is missing or malformed.
    """
    file = getattr(split, targets)
    if file is None:
        raise DatasetError(f"split {split.name!r}: expected a file of {targets} annotations, found none in the dataset")
    content = read_content(file)
    images = _checked(file, "images", lambda: sorted(content["images"], key=lambda image: int(image["id"])))
    if not images:
        raise DatasetError(f"{file}: images: expected at least one image, found none")
    image_ids = [int(image["id"]) for image in images]
    if len(set(image_ids)) < len(image_ids):
        raise DatasetError(f"{file}: images: expected every id once, found one twice")
    categories = _checked(file, "categories", lambda: _categories(content["categories"]))
    names = _checked(file, "images.file_name", lambda: [str(image["file_name"]) for image in images])
    sizes = _checked(file, "images", lambda: [(int(image["height"]), int(image["width"])) for image in images])
    objects = _checked(file, "annotations", lambda: _objects(content["annotations"], targets))
    place = {image_id: position for position, image_id in enumerate(image_ids)}
    classes = {category.id: index for index, category in enumerate(categories)}
    image_of = _numbers(file, "annotations.image_id", (item["image_id"] for item in objects), place)
    labels = _numbers(file, "annotations.category_id", (item["category_id"] for item in objects), classes)
    boxes = _boxes(file, objects, np.asarray(sizes, dtype=np.float64)[image_of])
    whole = np.flatnonzero(np.all(boxes[:, 2:] > boxes[:, :2], axis=1))
    kept = whole[np.argsort(image_of[whole], kind="stable")]
    counts = np.bincount(image_of[kept], minlength=len(images))
    return Annotations(
        categories,
        image_ids,
        [below_root(split.images, name, f"{file}: images.file_name") for name in names],
        sizes,
        np.concatenate([[0], np.cumsum(counts)]),
        labels[kept],
        boxes[kept].astype(np.float32),
        _masks(split, targets, content, [objects[number] for number in kept], image_ids) if masks else None,
    )


def read_content(file: Path) -> dict[str, Any]:
    """The annotation file as JSON has it: lists `images`, `annotations` and `categories`, their entries unchecked.

    Raises DatasetError for a file that is missing, isn't JSON or lacks one of the lists.
    """
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{file}: expected an annotation file, found no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file}: not valid JSON: {error}") from None
    for field in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(field), list):
            raise DatasetError(f"{file}: {field}: expected a list, found {'none' if field not in content else 'something else'}")
    return dict(content)


def _checked(file: Path, field: str, read: Callable[[], V]) -> V:
    try:
        return read()
    except KeyError as error:
        raise DatasetError(f"{file}: {field}: expected {error}, found an entry without it") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetError(f"{file}: {field}: malformed entry: {error}") from None


def _categories(entries: list[dict[str, Any]]) -> tuple[Category, ...]:
    found = [Category(int(entry["id"]), str(entry["name"]), bool(entry.get("isthing", 1))) for entry in entries]
    if len({category.id for category in found}) < len(found):
        raise ValueError("expected every id once, found one twice")
    return tuple(sorted(found, key=lambda category: category.id))


def _objects(entries: list[dict[str, Any]], targets: str) -> list[dict[str, Any]]:
    # A panoptic annotation is an image with its segments; an instance annotation is an object. Crowds train nothing.
    if targets == "panoptic":
        entries = [{**segment, "image_id": entry["image_id"]} for entry in entries for segment in entry["segments_info"]]
    return [entry for entry in entries if not entry.get("iscrowd", 0)]


def _numbers(file: Path, field: str, ids: Iterable[int], known: dict[int, int]) -> npt.NDArray[np.int64]:
    try:
        return np.array([known[number] for number in ids], dtype=np.int64)
    except KeyError as error:
        raise DatasetError(f"{file}: {field}: expected an id that the file defines, found {error}") from None


def _boxes(file: Path, objects: list[dict[str, Any]], sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # xywh of the file to xyxy inside the image; float64, so that a whole image's box ends exactly at its edge.
    boxes = _checked(
        file, "annotations.bbox", lambda: np.array([item["bbox"] for item in objects], dtype=np.float64).reshape(len(objects), 4)
    )
    if not np.isfinite(boxes).all():
        raise DatasetError(f"{file}: annotations.bbox: expected finite numbers, found others")
    boxes[:, 2:] += boxes[:, :2]
    return np.clip(boxes, 0, sizes[:, [1, 0, 1, 0]]) if len(objects) else boxes


def _masks(
    split: Split, targets: str, content: dict[str, Any], objects: list[dict[str, Any]], image_ids: list[int]
) -> InstanceMasks | PanopticMasks:
    file = getattr(split, targets)
    if targets == "instances":
        segmentations = _checked(file, "annotations", lambda: [item["segmentation"] for item in objects])
        return InstanceMasks(file, segmentations)
    folder = split.panoptic_masks
    assert folder is not None  # a split has both or none
    names = _checked(
        file, "annotations", lambda: {entry["image_id"]: str(entry["file_name"]) for entry in content["annotations"]}
    )
    files = [
        below_root(folder, names[number], f"{file}: annotations.file_name") if number in names else None for number in image_ids
    ]
    ids = _checked(file, "segments_info", lambda: np.array([item["id"] for item in objects], dtype=np.int32))
    return PanopticMasks(files, ids)
