"""Distributes the images of an optimiser step among processes and micro-batches so that little of each batch is padding.

A batch is padded to the largest height and width of its images, so its cost is its padded pixels: images x height x width.
The processes wait for each other at the end of a step, so the most padded pixels of a process decide how long a step takes, and
the most padded pixels of a micro-batch decide how much memory it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar

Distribution = Literal["random", "by_shape"]  # which images of a step a micro-batch gets: those at its place, or of similar shape
T = TypeVar("T")
Size = tuple[int, int]  # (h, w)
Parts = list[list[list[int]]]  # the positions of the images of each micro-batch of each process
PRECISION = 256  # the search for the smallest bound of the padded pixels stops when a 256th of it is undecided


def contiguous_slice(items: Sequence[T], share: int, shares: int) -> list[T]:
    """Returns one of `shares` contiguous slices of the items, whose lengths differ by at most one."""
    return list(items[len(items) * share // shares : len(items) * (share + 1) // shares])


def contiguous(images: int, processes: int, accumulation: int) -> Parts:
    """Returns the distribution by position: a slice of the images for each process, and a slice of that for each micro-batch."""
    slices = [contiguous_slice(range(images), rank, processes) for rank in range(processes)]
    return [[contiguous_slice(positions, micro, accumulation) for micro in range(accumulation)] for positions in slices]


def by_shape(sizes: Sequence[Size], processes: int, accumulation: int) -> Parts:
    """Returns the distribution of images with these sizes by shape. It depends only on the arguments.

    Every micro-batch has at least one image; apart from that, their numbers of images differ freely. Neither the most padded
    pixels of a process nor the most of a micro-batch exceed those of the distribution by position. There must be at least
    processes x accumulation images.
    """
    by_position = contiguous(len(sizes), processes, accumulation)
    largest = most_pixels_of_a_micro_batch(sizes, by_position)
    candidates = [by_position]
    for order in _orders(sizes):
        parts = _dealt(sizes, _cut_evenly(sizes, order, processes * accumulation), processes, accumulation)
        if most_pixels_of_a_micro_batch(sizes, parts) <= largest:
            candidates.append(parts)
    return min(candidates, key=lambda parts: (most_pixels_of_a_process(sizes, parts), most_pixels_of_a_micro_batch(sizes, parts)))


def padded_pixels(sizes: Sequence[Size], positions: Sequence[int]) -> int:
    """Returns how many pixels the batch of the images at these positions has, with its padding."""
    return len(positions) * max(sizes[i][0] for i in positions) * max(sizes[i][1] for i in positions)


def most_pixels_of_a_process(sizes: Sequence[Size], parts: Parts) -> int:
    """Returns the largest sum of the padded pixels of the micro-batches of one process."""
    return max(sum(padded_pixels(sizes, micro) for micro in process) for process in parts)


def most_pixels_of_a_micro_batch(sizes: Sequence[Size], parts: Parts) -> int:
    """Returns the padded pixels of the largest micro-batch of all processes."""
    return max(padded_pixels(sizes, micro) for process in parts for micro in process)


def _orders(sizes: Sequence[Size]) -> Iterator[list[int]]:
    # Yields orders in which neighbours have similar shapes: classes of aspect ratio, upright first, and areas within a class. In
    # two of the orders the areas of every second class descend, so that images at the border of two classes are similar too.
    aspect_classes: list[Callable[[Size], int]] = [
        lambda size: int(size[1] >= size[0]),
        lambda size: int(10 * size[1] > 9 * size[0]) + int(9 * size[1] > 10 * size[0]),
    ]
    for aspect_class in aspect_classes:
        classes = [aspect_class(size) for size in sizes]
        areas = [height * width for height, width in sizes]
        for sign in (1, -1):
            keys = [(number, area * sign**number) for number, area in zip(classes, areas, strict=True)]
            yield sorted(range(len(sizes)), key=keys.__getitem__)


def _cut_evenly(sizes: Sequence[Size], order: list[int], count: int) -> list[list[int]]:
    # Cuts the order into `count` contiguous groups whose largest number of padded pixels is as small as possible.
    low = max(max(h * w for h, w in sizes), sum(h * w for h, w in sizes) // count) - 1  # no cut satisfies this bound
    groups = [contiguous_slice(order, share, count) for share in range(count)]
    high = max(padded_pixels(sizes, group) for group in groups)
    while high - low > max(1, high // PRECISION):
        bound = (low + high) // 2
        within_bound = _cut(sizes, order, count, bound)
        if within_bound is None:
            low = bound
        else:
            groups, high = within_bound, max(padded_pixels(sizes, group) for group in within_bound)
    while len(groups) < count:  # a part of a group has no more padded pixels than the group
        group = max((group for group in groups if len(group) > 1), key=lambda group: padded_pixels(sizes, group))
        place = groups.index(group)
        groups[place : place + 1] = [contiguous_slice(group, 0, 2), contiguous_slice(group, 1, 2)]
    return groups


def _cut(sizes: Sequence[Size], order: list[int], count: int, bound: int) -> list[list[int]] | None:
    # Cuts the order into the fewest contiguous groups of at most `bound` padded pixels; None if these are more than `count`.
    groups: list[list[int]] = []
    start = height = width = 0
    for place, position in enumerate(order):
        h, w = sizes[position]
        taller, wider = max(height, h), max(width, w)
        if place > start and (place - start + 1) * taller * wider > bound:
            groups.append(order[start:place])
            if len(groups) == count:
                return None
            start, taller, wider = place, h, w
        height, width = taller, wider
    return [*groups, order[start:]]


def _dealt(sizes: Sequence[Size], groups: list[list[int]], processes: int, accumulation: int) -> Parts:
    # Deals `accumulation` groups to each process: each group, in descending order of pixels, to the process with the fewest.
    parts: Parts = [[] for _ in range(processes)]
    pixels = [0] * processes
    costs = [padded_pixels(sizes, group) for group in groups]
    for number in sorted(range(len(groups)), key=lambda number: -costs[number]):
        rank = min((rank for rank in range(processes) if len(parts[rank]) < accumulation), key=pixels.__getitem__)
        parts[rank].append(sorted(groups[number]))
        pixels[rank] += costs[number]
    return parts
