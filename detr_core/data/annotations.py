"""Reads COCO's two kinds of annotation files, `instances_*.json` and `panoptic_*.json`, into checked arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from detr_core.data import fields
from detr_core.data.masks import NO_MASK, InstanceMasks, Masks, PanopticMasks
from detr_core.data.splits import DatasetError, Split, below_root
from detr_core.data.texts import Texts
from detr_core.data.values import Ranges
from detr_core.structures import Category

Targets = Literal["instances", "panoptic"]
Arrays = Mapping[str, npt.NDArray[Any]]

CROWDS, EMPTY = "crowds", "empty_boxes"  # objects that are not trained on; an empty box has no extent inside the image


@dataclass(frozen=True)
class Annotations:
    """The content of an annotation file, without crowds and empty boxes.

    categories: sorted by id. image_ids: sorted, including images without objects. files, sizes: the path and the size (h, w) of
    each image, in the same order. first: image i has the objects from first[i] to first[i + 1] - 1.
    labels [objects]: class index. boxes [objects, 4]: float32, xyxy in pixels, clipped to the image.
    masks: the masks of the objects, None if they were not requested. not_trained_on: reason -> number of
    objects that are not in these arrays.
    value_ranges: sample type -> the values by which images of more than 8 bits per value are scaled.
    """

    categories: tuple[Category, ...]
    image_ids: list[int]
    files: ImagePaths
    sizes: list[tuple[int, int]]
    first: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    masks: Masks | None
    not_trained_on: dict[str, int]
    value_ranges: Ranges | None


class ImagePaths(Sequence[Path]):
    """The paths of the files of a folder. A path is built when it is read, so that memory holds only the names."""

    def __init__(self, folder: Path, names: Texts) -> None:
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        return [self.folder / name for name in self.names[index]] if isinstance(index, slice) else self.folder / self.names[index]

    def __iter__(self) -> Iterator[Path]:
        return (self.folder / name for name in self.names)


def annotation_file(split: Split, targets: Targets) -> Path:
    """Returns the path of the split's annotation file. Raises DatasetError if the split has none."""
    file: Path | None = getattr(split, targets)
    if file is None:
        raise DatasetError(
            f"split {split.name!r}: expected a file of {targets.removesuffix('s')} annotations, found none in the dataset"
        )
    return file


def annotations_of(arrays: Arrays, split: Split, targets: Targets) -> Annotations:
    """Returns the Annotations of `split` from the arrays of `parsed`; masks are included if they were parsed."""
    categories = json.loads(arrays["categories"].tobytes())
    masks: Masks | None = None
    if "masks" in arrays and targets == "instances":
        masks = InstanceMasks(annotation_file(split, targets), Texts(arrays["masks"], arrays["mask_starts"]))
    elif "masks" in arrays:
        assert split.panoptic_masks is not None  # a split has both a panoptic file and a folder of PNGs, or neither
        names = Texts(arrays["masks"], arrays["mask_starts"])
        masks = PanopticMasks(split.panoptic_masks, names, arrays["segments"])
    return Annotations(
        tuple(Category(number, name, isthing) for number, name, isthing in categories),
        arrays["image_ids"].tolist(),
        ImagePaths(split.images, Texts(arrays["names"], arrays["name_starts"])),
        [(height, width) for height, width in arrays["sizes"].tolist()],
        arrays["first"],
        arrays["labels"],
        arrays["boxes"],
        masks,
        dict(zip((CROWDS, EMPTY), arrays["left_out"].tolist(), strict=True)),
        split.value_ranges,
    )


def parsed(file: Path, targets: Targets, masks: bool) -> dict[str, npt.NDArray[Any]]:
    """Returns the annotation file as arrays: the fields of Annotations, with texts as the arrays of Texts and categories as JSON.

    Raises DatasetError, which names the file and the field, for a file that is missing or malformed.
    """
    content = fields.read_content(file)
    images = fields.checked(file, "images", lambda: sorted(content["images"], key=lambda image: fields.whole(image["id"])))
    if not images:
        raise DatasetError(f"{file}: images: expected at least one image, found none")
    image_ids = [fields.whole(image["id"]) for image in images]
    if len(set(image_ids)) < len(image_ids):
        raise DatasetError(f"{file}: images: expected every id once, found one twice")
    categories = fields.checked(file, "categories", lambda: fields.category_list(content["categories"]))
    names = fields.checked(file, "images.file_name", lambda: [fields.text(image["file_name"]) for image in images])
    for name in names:
        below_root(Path(), name, f"{file}: images.file_name")
    sizes = fields.checked(
        file, "images", lambda: [(fields.side(image["height"]), fields.side(image["width"])) for image in images]
    )
    entries = fields.checked(file, "annotations", lambda: _entries(content["annotations"], targets))
    index_of = {image_id: position for position, image_id in enumerate(image_ids)}
    classes = {number: index for index, (number, _, _) in enumerate(categories)}
    image_of = _numbers(file, "annotations.image_id", (entry.get("image_id") for entry in entries), index_of)
    labels = _numbers(file, "annotations.category_id", (entry.get("category_id") for entry in entries), classes)
    boxes = _boxes(file, entries, np.asarray(sizes, dtype=np.float64)[image_of])
    crowd = fields.checked(
        file, "annotations.iscrowd", lambda: np.array([fields.flag(entry.get("iscrowd", 0)) for entry in entries], dtype=np.bool_)
    )
    has_extent = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    trained = np.flatnonzero(has_extent & ~crowd)
    order = trained[np.argsort(image_of[trained], kind="stable")]
    counts = np.bincount(image_of[order], minlength=len(images))
    name_texts = Texts.of(names)
    arrays: dict[str, npt.NDArray[Any]] = {
        "categories": np.frombuffer(json.dumps(categories).encode(), dtype=np.uint8),
        "image_ids": np.array(image_ids, dtype=np.int64),
        "names": name_texts.content,
        "name_starts": name_texts.starts,
        "sizes": np.array(sizes, dtype=np.int32),
        "first": np.concatenate([[0], np.cumsum(counts)]),
        "labels": labels[order],
        "boxes": boxes[order].astype(np.float32),
        "left_out": np.array([crowd.sum(), (~crowd & ~has_extent).sum()]),
    }
    if masks:
        arrays |= _masks(file, targets, content["annotations"], [entries[number] for number in order], image_ids)
    return arrays


def _entries(entries: list[dict[str, Any]], targets: Targets) -> list[dict[str, Any]]:
    # A panoptic annotation is an image with its segments; an instance annotation is an object.
    if targets == "panoptic":
        image_ids = [fields.whole(entry["image_id"]) for entry in entries]
        if len(set(image_ids)) < len(image_ids):
            raise ValueError("expected one entry per image, found two of one image")
        for entry in entries:
            if type(entry["segments_info"]) is not list:
                raise ValueError(f"expected a list as segments_info, found {entry['segments_info']!r:.60}")
            ids = [fields.segment_id(segment["id"]) for segment in entry["segments_info"]]
            if len(set(ids)) < len(ids):
                raise ValueError(f"expected every segment of an image once, found one twice in image {entry['image_id']}")
        return [{**segment, "image_id": entry["image_id"]} for entry in entries for segment in entry["segments_info"]]
    annotation_ids = [fields.annotation_id(entry["id"]) for entry in entries if "id" in entry]
    if len(set(annotation_ids)) < len(annotation_ids):
        raise ValueError("expected every id once, found one twice")
    return entries


def _numbers(file: Path, field: str, ids: Iterable[Any], index_of: dict[int, int]) -> npt.NDArray[np.int64]:
    try:
        return np.array([index_of[fields.whole(number)] for number in ids], dtype=np.int64)
    except KeyError as error:
        raise DatasetError(f"{file}: {field}: expected an id that the file defines, found {error}") from None
    except ValueError as error:
        raise DatasetError(f"{file}: {field}: {error}") from None


def _boxes(file: Path, entries: list[dict[str, Any]], sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # Converts xywh to xyxy inside the image. With float64 the box of a whole image ends exactly at the edge of the image.
    def read() -> npt.NDArray[np.float64]:
        boxes = np.array([entry["bbox"] for entry in entries])
        if len(entries) and boxes.dtype.kind not in "iuf":  # astype would accept numbers in quotes
            raise ValueError("expected four numbers, found other values")
        return boxes.astype(np.float64).reshape(len(entries), 4)

    boxes = fields.checked(file, "annotations.bbox", read)
    if not np.isfinite(boxes).all():
        raise DatasetError(f"{file}: annotations.bbox: expected finite numbers, found other values")
    with np.errstate(over="ignore"):  # a box that overflows is clipped like every box that leaves the image
        boxes[:, 2:] += boxes[:, :2]
    return np.clip(boxes, 0, sizes[:, [1, 0, 1, 0]]) if len(entries) else boxes


def _masks(
    file: Path, targets: Targets, entries: list[dict[str, Any]], objects: list[dict[str, Any]], image_ids: list[int]
) -> dict[str, npt.NDArray[Any]]:
    if targets == "instances":
        texts = Texts.of(_segmentation(item) for item in objects)
        return {"masks": texts.content, "mask_starts": texts.starts}
    names = fields.checked(file, "annotations", lambda: {entry["image_id"]: fields.text(entry["file_name"]) for entry in entries})
    for name in names.values():
        if name == "":
            raise DatasetError(f"{file}: annotations.file_name: expected the name of a PNG, found ''")
        below_root(Path(), name, f"{file}: annotations.file_name")
    segments = fields.checked(file, "segments_info", lambda: np.array([item["id"] for item in objects], dtype=np.int32))
    texts = Texts.of(names.get(number, "") for number in image_ids)
    return {"masks": texts.content, "mask_starts": texts.starts, "segments": segments}


def _segmentation(entry: dict[str, Any]) -> str:
    # Returns an object's polygons or run lengths as JSON. Exporters leave the field out, or write [] or null, for a box alone.
    outline = entry.get("segmentation")
    return NO_MASK if outline is None or outline == [] else json.dumps(outline, separators=(",", ":"))
