"""Counts the objects of a split by class, size and image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

from detr_core.check.entries import Entries
from detr_core.structures import category_labels


@dataclass
class Statistics:
    """The numbers of objects and images of one split, without crowds and broken objects.

    classes: category label (see `category_labels`) -> number of objects, in the order of category ids. objects: number of
    objects in an image -> number of such images. sides: square root of a box's area, rounded to pixels -> number of objects.
    sizes: (h, w) -> number of images. crowds: the number of crowds.
    """

    classes: dict[str, int]
    objects: Counter[int] = field(default_factory=Counter)
    sides: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    crowds: int = 0

    @property
    def most_objects(self) -> int:
        """The largest number of objects in one image."""
        return max(self.objects, default=0)


def count(entries: Entries, names: Mapping[int, str]) -> Statistics:
    """Returns the statistics of an annotation file's entries. names: category id -> name."""
    per_class = dict.fromkeys(sorted(names), 0)
    statistics = Statistics({}, crowds=sum(map(len, entries.crowds.values())))
    for image in entries.images.values():
        objects = entries.objects.get(image.id, {})
        statistics.sizes[image.size] += 1
        statistics.objects[len(objects)] += 1
        for category, (_, _, w, h) in objects.values():
            per_class[category] += 1
            statistics.sides[round(sqrt(w * h))] += 1
    labels = category_labels(names)
    statistics.classes = {labels[number]: objects for number, objects in per_class.items()}
    return statistics


def quantile(counter: Mapping[int, int], share: float) -> int:
    """Returns the smallest value v such that at least `share` of the counted values are at most v; 0 without values."""
    total, below = sum(counter.values()), 0
    for value in sorted(counter):
        below += counter[value]
        if below >= share * total:
            return value
    return 0


def by_size(sides: Mapping[int, int]) -> dict[str, int]:
    """Returns the number of objects by COCO's sizes: small (below 32² pixels), medium (from 32² to 96²) and large."""
    bounds = {"small": (0, 32), "medium": (32, 96), "large": (96, 1 << 62)}
    return {name: sum(n for side, n in sides.items() if low <= side < high) for name, (low, high) in bounds.items()}
