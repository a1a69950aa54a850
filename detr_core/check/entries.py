"""Checks the entries of one annotation file one by one, and collects all faults instead of stopping at the first one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detr_core.check.conversion import conversion_findings
from detr_core.check.findings import Finding
from detr_core.check.masks import objects_without_mask
from detr_core.check.outlines import outline_fault
from detr_core.data.config import LARGEST_SIDE
from detr_core.data.fields import LARGEST_SEGMENT, annotation_id, category_list, flag, text, whole
from detr_core.data.splits import DatasetError, below_root
from detr_core.evaluate.areas import is_plausible
from detr_core.sources.image_entries import SIZE_READ


@dataclass(frozen=True)
class ImageEntry:
    """An image as its annotation file describes it. entry_index: its index in the list `images`. size: (h, w), pixels."""

    id: int
    name: str
    size: tuple[int, int]
    entry_index: int


@dataclass
class Entries:
    """The valid entries of an annotation file, and the findings about the others.

    images: image id -> entry. objects: image id -> {annotation or segment id: (category id, box as xywh in pixels)} of the valid
    objects, without crowds. crowds: image id -> ids of its valid crowds. panoptic: for `panoptic_*.json`, image id -> (index in
    `annotations`, file name of the PNG, {segment id: area in pixels}), including crowds. findings: the faults.
    """

    images: dict[int, ImageEntry]
    objects: dict[int, dict[int | str, tuple[int, tuple[float, float, float, float]]]]
    crowds: dict[int, set[int | str]]
    panoptic: dict[int, tuple[int, str, dict[int, float]]]
    findings: list[Finding]

    def leave_out(self, images: Iterable[int], segments: Iterable[tuple[int, int]] = ()) -> None:
        """Removes images with all their objects, and single segments (image id, segment id)."""
        for number in images:
            for part in (self.images, self.objects, self.crowds, self.panoptic):
                part.pop(number, None)
        for image_id, segment in segments:
            self.objects.get(image_id, {}).pop(segment, None)
            self.crowds.get(image_id, set()).discard(segment)


def check_entries(content: dict[str, Any], split: str, source: str) -> Entries:
    """Returns the checked entries of `instances_*.json` or `panoptic_*.json`.

    content: the file's lists `images`, `annotations` and `categories`, as `read_content` returns them.
    Raises DatasetError if the categories are not a list of ids and names, because objects can't be checked without them.
    """
    categories = category_names(content, f"{split}.{source}")
    result = Entries({}, {}, {}, {}, [])
    _check_images(content["images"], result, split, source)
    repeated_image_ids = {
        finding.image_id for finding in result.findings if finding.kind == "image_id" and finding.image_id is not None
    }
    seen_ids: set[int | str] = set()
    for index, entry in enumerate(content["annotations"]):
        base_finding = Finding("object_entry", split, source, entry_index=index)
        if not isinstance(entry, dict):
            result.findings.append(replace(base_finding, detail=f"expected an object of JSON, found {str(entry)[:60]}"))
        elif source == "panoptic":
            result.findings += _panoptic(entry, base_finding, result, categories)
        else:
            result.findings += _object(entry, base_finding, result, categories, seen_ids)
    # If these images were removed earlier, their annotations would be findings of an unknown image.
    result.leave_out(repeated_image_ids)
    result.findings += _repeated(result, split, source)
    if source == "instances":
        names = {number: image.name for number, image in result.images.items()}
        result.findings += objects_without_mask(content["annotations"], names, result.findings, split)
        result.findings = conversion_findings(content, result.findings, split, source)
    return result


def _check_images(entries: list[Any], result: Entries, split: str, source: str) -> None:
    """Adds valid images and the findings about all others to `result`. If several images have one id, the first one is added."""
    id_counts = Counter(_whole(entry, "id") for entry in entries if isinstance(entry, dict))
    for index, entry in enumerate(entries):
        image, fault = _image(entry, index)
        number, name = (_whole(entry, "id"), str(entry.get("file_name", ""))) if isinstance(entry, dict) else (None, "")
        base_finding = Finding("image_entry", split, source, number, name, index)
        if image is None:
            result.findings.append(replace(base_finding, detail=fault))
            continue
        if id_counts[number] > 1:
            result.findings.append(
                replace(base_finding, kind="image_id", detail=f"{id_counts[number]} images have the id {number}")
            )
        elif entry.get(SIZE_READ) is True:
            height, width = image.size
            result.findings.append(replace(base_finding, kind="image_size_read", detail=f"{width} x {height} pixels"))
        result.images.setdefault(image.id, image)


def category_names(content: dict[str, Any], where: str) -> dict[int, str]:
    """Returns category id -> name. Raises DatasetError for categories that are malformed or have an id twice."""
    try:
        names = {number: name for number, name, _ in category_list(content["categories"])}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"{where}: categories: malformed entry: {error}") from None
    if not names:
        raise DatasetError(f"{where}: categories: expected at least one category, found none")
    return names


def category_difference(splits: Mapping[str, Mapping[int, str]]) -> str:
    """Returns which categories only one split has, '' if there are none. splits: name of the split -> category id -> name."""
    common = set.intersection(*(set(names.items()) for names in splits.values()))
    parts = []
    for split, names in splits.items():
        unshared = [f"{name!r} (id {number})" for number, name in sorted(names.items()) if (number, name) not in common]
        remainder = f" and {len(unshared) - 3} more" if len(unshared) > 3 else ""
        parts += [f"only {split} has {', '.join(unshared[:3])}{remainder}"] if unshared else []
    return "; ".join(parts)


def _image(entry: Any, index: int) -> tuple[ImageEntry | None, str]:
    if not isinstance(entry, dict):
        return None, f"expected an object of JSON, found {str(entry)[:60]}"
    for field, kind, expected in (("id", whole, "a whole number"), ("width", whole, "pixels"), ("height", whole, "pixels"),
                                  ("file_name", text, "text")):  # fmt: skip
        try:
            kind(entry.get(field))
        except ValueError:
            return None, f"{field}: expected {expected}, found {repr(entry[field])[:60] if field in entry else 'nothing'}"
    number, height, width = (whole(entry[field]) for field in ("id", "height", "width"))
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        return None, f"expected a size of 1 to {LARGEST_SIDE} pixels, found {width} x {height}"
    try:
        below_root(Path(), entry["file_name"], "file_name")
    except DatasetError as error:
        return None, str(error)
    return ImageEntry(number, entry["file_name"], (height, width), index), ""


def _panoptic(entry: dict[str, Any], base_finding: Finding, result: Entries, categories: dict[int, str]) -> Iterator[Finding]:
    image_id = _whole(entry, "image_id")
    image = None if image_id is None else result.images.get(image_id)
    if image is None:
        yield replace(base_finding, kind="object_without_image", detail=f"image_id {str(entry.get('image_id'))[:40]}")
        return
    base_finding = replace(base_finding, image_id=image.id, file=image.name)
    segments, name = entry.get("segments_info"), entry.get("file_name")
    if not isinstance(segments, list) or not isinstance(name, str) or image.id in result.panoptic or Path(name).is_absolute():
        yield replace(
            base_finding, detail="expected a list `segments_info`, a relative path `file_name`, and one entry per image"
        )
        return
    areas: dict[int, float] = {}
    result.panoptic[image.id] = (base_finding.entry_index or 0, name, areas)
    seen_ids: set[int | str] = set()
    for segment in segments:
        number = _whole(segment, "id") if isinstance(segment, dict) else None
        if number is None or not 0 < number <= LARGEST_SEGMENT:
            yield replace(base_finding, detail="a segment without an id from 1 to 256^3 - 1")
            continue
        # A segment that is left out stays known, so that its pixels do not count as an unknown segment.
        areas[number] = float(segment["area"]) if type(segment.get("area")) in (int, float) else math.nan
        where = replace(base_finding, segment=number)
        yield from _object(segment | {"image_id": image.id}, where, result, categories, seen_ids)


def _object(
    entry: dict[str, Any], base_finding: Finding, result: Entries, categories: dict[int, str], seen_ids: set[int | str]
) -> Iterator[Finding]:
    number, image_id, category = _annotation_id(entry), *(_whole(entry, field) for field in ("image_id", "category_id"))
    image = None if image_id is None else result.images.get(image_id)
    base_finding = replace(base_finding, image_id=image_id, file=image.name if image else "")
    box = _box(entry.get("bbox"))
    if image_id is None and entry.get("image_id") is not None:
        detail = f"image_id {str(entry['image_id'])[:40]!r}, which is not a whole number, as the ids of images are"
        yield replace(base_finding, kind="object_without_image", detail=detail)
    elif number is None or image_id is None or category is None:
        yield replace(base_finding, detail="expected an `id`, and whole numbers as `image_id` and `category_id`")
    elif number in seen_ids:
        yield replace(base_finding, kind="object_id", box=_drawable(box), detail=f"an earlier annotation has the id {number} too")
    elif image is None:
        yield replace(base_finding, kind="object_without_image", detail=f"image_id {image_id}")
    elif category not in categories:
        yield replace(base_finding, kind="unknown_category", box=_drawable(box), detail=f"category_id {category}")
    elif box is None:
        yield replace(base_finding, detail=f"expected `bbox` of 4 numbers, found {str(entry.get('bbox'))[:60]}")
    elif not _is_flag(entry.get("iscrowd", 0)):
        yield replace(base_finding, box=_drawable(box), detail=f"expected `iscrowd` 0 or 1, found {entry['iscrowd']!r:.60}")
    else:
        faults = list(_box_faults(box, image.size, base_finding))
        if base_finding.source == "instances" and (segmentation := entry.get("segmentation")) not in (None, []):
            fault = outline_fault(segmentation, image.size)
            if fault is not None:
                faults.append(replace(base_finding, kind=fault[0], box=_drawable(box), detail=fault[1]))
        if not faults and "area" in entry and not is_plausible(entry["area"], box):
            detail = f"area {str(entry['area'])[:40]}, box {box[2]:g} x {box[3]:g} pixels"
            faults.append(replace(base_finding, kind="object_area", box=_drawable(box), detail=detail))
        yield from faults
        if all(fault.leaves is None for fault in faults):
            if entry.get("iscrowd", 0):
                result.crowds.setdefault(image_id, set()).add(number)
            else:
                result.objects.setdefault(image_id, {})[number] = (category, box)
    if number is not None:
        seen_ids.add(number)


def _box_faults(box: tuple[float, float, float, float], size: tuple[int, int], base_finding: Finding) -> Iterator[Finding]:
    x, y, w, h = box
    detail = f"x {x:g}, y {y:g}, w {w:g}, h {h:g} in {size[1]} x {size[0]} pixels"
    if not all(map(math.isfinite, box)) or w <= 0 or h <= 0:
        yield replace(base_finding, kind="box_degenerate", box=_drawable(box), detail=detail)
    elif x >= size[1] or y >= size[0] or x + w <= 0 or y + h <= 0:
        yield replace(base_finding, kind="box_outside", box=_drawable(box), detail=detail)
    elif min(x, y) < -1 or x + w > size[1] + 1 or y + h > size[0] + 1:
        yield replace(base_finding, kind="box_clipped", box=_drawable(box), detail=detail)


def _repeated(result: Entries, split: str, source: str) -> Iterator[Finding]:
    for image_id, by_id in result.objects.items():
        objects = list(by_id.values())
        if len(set(objects)) < len(objects):
            repeated_object = next(item for index, item in enumerate(objects) if item in objects[:index])
            detail = f"{len(objects) - len(set(objects))} of {len(objects)}"
            yield Finding(
                "object_repeated", split, source, image_id, result.images[image_id].name, box=repeated_object[1], detail=detail
            )


def _whole(entry: Any, field: str) -> int | None:
    try:
        return whole(entry.get(field))
    except ValueError:
        return None


def _is_flag(value: Any) -> bool:
    try:
        flag(value)
    except ValueError:
        return False
    return True


def _annotation_id(entry: dict[str, Any]) -> int | str | None:
    try:
        return annotation_id(entry.get("id"))
    except ValueError:
        return None


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(value, list) or len(value) != 4 or not all(type(number) in (int, float) for number in value):
        return None
    x, y, w, h = (math.inf if abs(number) >= 2**53 else float(number) for number in value)
    return x, y, w, h


def _drawable(box: tuple[float, float, float, float] | None) -> tuple[float, float, float, float] | None:
    """Returns the box if it can be drawn in a picture and written as JSON, else None."""
    return box if box is not None and all(map(math.isfinite, box)) else None
