"""Selects evenly spaced items, so that examples are not hand-picked."""

from __future__ import annotations


def evenly_spaced(images: int, count: int) -> list[int]:
    """Returns the indices of `count` evenly spaced images, or of all images if there are fewer."""
    count = min(count, images)
    return [index * images // count for index in range(count)]
