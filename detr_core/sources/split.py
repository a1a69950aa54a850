"""Divides a dataset without a validation split: draws a share of the images, stratified by class."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from detr_core.data import fields


def stratified(classes: Mapping[int, Sequence[int]], share: float, seed: int, copies: Iterable[Sequence[int]] = ()) -> set[int]:
    """Returns the ids of the images for validation: `share` of all images and, as nearly as possible, of each class's images.

    classes: image id -> its classes, including images without classes. The same `seed` gives the same images, in whatever order
    they are listed. The method is iterative stratification (Sechidis et al. 2011): the rarest class is distributed first, and
    each image goes to the split that needs most of that class, so that even a class of few images is in both splits.
    copies: groups of images of the same content. They go to the same split, because a validation image must not be trained on.
    Each split gets at least one image if there are two images of different content.
    """
    copies_of = {image: list(images) for images in copies for image in images}
    order = np.random.default_rng(seed).permutation(sorted(classes)).tolist()
    images_of: dict[int, set[int]] = {}
    for image in order:
        for number in classes[image]:
            images_of.setdefault(number, set()).add(image)
    need = {number: {True: share * len(images), False: (1 - share) * len(images)} for number, images in images_of.items()}
    room = {True: share * len(order), False: (1 - share) * len(order)}
    val: set[int] = set()
    remaining = dict.fromkeys(order)

    def assign(image: int, rarest: int | None) -> None:
        if image not in remaining:
            return  # it was assigned together with a copy
        demand = room if rarest is None else need[rarest]
        to_val = (demand[True], room[True]) > (demand[False], room[False])
        for member in copies_of.get(image, [image]):
            if to_val:
                val.add(member)
            room[to_val] -= 1
            for number in set(classes[member]):
                need[number][to_val] -= 1
                images_of[number].discard(member)
            del remaining[member]

    while remaining_classes := [number for number, images in images_of.items() if images]:
        rarest = min(remaining_classes, key=lambda number: (len(images_of[number]), number))
        for image in [image for image in remaining if image in images_of[rarest]]:
            assign(image, rarest)
    for image in list(remaining):
        assign(image, None)
    first = set(copies_of.get(order[0], [order[0]])) if order else set()
    if len(first) < len(order):
        if not val:
            val |= first
        elif len(val) == len(order):
            val -= first
    return val


def same_content(files: Mapping[int, Path]) -> list[list[int]]:
    """Returns groups of two or more ids whose files have the same bytes. Empty files are ignored."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for number, path in sorted(files.items()):
        by_size[path.stat().st_size].append(number)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for size, numbers in by_size.items():
        for number in numbers if size and len(numbers) > 1 else ():
            with suppress(OSError), files[number].open("rb") as file:  # the data check reports files that can't be read
                groups[hashlib.file_digest(file, "sha256").digest()].append(number)
    return [numbers for numbers in groups.values() if len(numbers) > 1]


def parted(content: Mapping[str, Any], val: set[int]) -> dict[str, dict[str, Any]]:
    """Divides an annotation file into 'train' and 'val', each with all categories. Every entry is in exactly one of them.

    val: the ids of the images that go to val with their annotations. All other entries go to train, including malformed ones
    and annotations without an image, because the data check must see them.
    """
    parts: dict[str, dict[str, Any]] = {name: {**content, "images": [], "annotations": []} for name in ("train", "val")}
    for part, field in (("images", "id"), ("annotations", "image_id")):
        for entry in content[part]:
            parts["val" if id_in(entry, field) in val else "train"][part].append(entry)
    return parts


def id_in(entry: Any, field: str) -> int | None:
    """Returns the whole number in a field of an entry; None if the field is missing or holds something else."""
    try:
        return fields.whole(entry.get(field))
    except (AttributeError, ValueError):
        return None
