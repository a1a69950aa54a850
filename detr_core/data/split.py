"""A validation split where a dataset has none: a share of the images, drawn by class."""

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
    """The images, by id, that go to validation: `share` of all and, as nearly as can be, of those with each class.

    classes: the classes in each image, images without any included. The same `seed` gives the same images, in whatever order
    they are listed. Iterative stratification (Sechidis et al. 2011): the rarest class is dealt out first, each image to
    the split that still wants that class most, so that a class of a few images isn't left to chance.
    copies: groups of images of the same content, which go to the same split: an image to validate on must not be trained on.
    At least one image is drawn and one is left, where there are two that are no copies of each other.
    """
    group = {image: list(images) for images in copies for image in images}
    order = np.random.default_rng(seed).permutation(sorted(classes)).tolist()
    holding: dict[int, set[int]] = {}
    for image in order:
        for each in classes[image]:
            holding.setdefault(each, set()).add(image)
    wanted = {each: {True: share * len(images), False: (1 - share) * len(images)} for each, images in holding.items()}
    room = {True: share * len(order), False: (1 - share) * len(order)}
    drawn: set[int] = set()
    left = dict.fromkeys(order)

    def deal(image: int, rarest: int | None) -> None:
        if image not in left:
            return  # dealt with a copy of it
        wish = room if rarest is None else wanted[rarest]
        to_val = (wish[True], room[True]) > (wish[False], room[False])
        for member in group.get(image, [image]):
            if to_val:
                drawn.add(member)
            room[to_val] -= 1
            for each in set(classes[member]):
                wanted[each][to_val] -= 1
                holding[each].discard(member)
            del left[member]

    while some := [each for each, images in holding.items() if images]:
        rarest = min(some, key=lambda each: (len(holding[each]), each))
        for image in [image for image in left if image in holding[rarest]]:
            deal(image, rarest)
    for image in list(left):
        deal(image, None)
    first = set(group.get(order[0], [order[0]])) if order else set()
    if len(first) < len(order):
        if not drawn:
            drawn |= first
        elif len(drawn) == len(order):
            drawn -= first
    return drawn


def same_content(files: Mapping[int, Path]) -> list[list[int]]:
    """Groups of two or more ids whose files have the same bytes. Only files of equal size are read; empty ones are no copies."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for number, path in sorted(files.items()):
        by_size[path.stat().st_size].append(number)
    groups: dict[bytes, list[int]] = defaultdict(list)
    for size, numbers in by_size.items():
        for number in numbers if size and len(numbers) > 1 else ():
            with suppress(OSError), files[number].open("rb") as file:  # the check says which files can't be read
                groups[hashlib.file_digest(file, "sha256").digest()].append(number)
    return [numbers for numbers in groups.values() if len(numbers) > 1]


def parted(content: Mapping[str, Any], val: set[int]) -> dict[str, dict[str, Any]]:
    """The annotation file as two, 'train' and 'val', each with all categories. Every entry is in exactly one of them.

    val: ids of the images that go to val with their annotations. Everything else goes to train, entries that are malformed and
    annotations of no image included: the check of the data has to see them.
    """
    parts: dict[str, dict[str, Any]] = {name: {**content, "images": [], "annotations": []} for name in ("train", "val")}
    for what, field in (("images", "id"), ("annotations", "image_id")):
        for entry in content[what]:
            parts["val" if id_in(entry, field) in val else "train"][what].append(entry)
    return parts


def id_in(entry: Any, field: str) -> int | None:
    """The whole number in a field of an entry; None where there is none."""
    try:
        return fields.whole(entry.get(field))
    except (AttributeError, ValueError):
        return None
