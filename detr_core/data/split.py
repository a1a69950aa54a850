"""A validation split where a dataset has none: a share of the images, drawn by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def stratified(classes: Mapping[int, Sequence[int]], share: float, seed: int) -> set[int]:
    """The images, by id, that go to validation: `share` of all and, as nearly as can be, of those with each class.

    classes: the classes in each image, images without any included. The same `seed` gives the same images, in whatever order
    they are listed. Iterative stratification (Sechidis et al. 2011): the rarest class is dealt out first, each image to
    the split that still wants that class most, so that a class of a few images isn't left to chance.
    At least one image is drawn and one is left, where there are two.
    """
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
        wish = room if rarest is None else wanted[rarest]
        to_val = (wish[True], room[True]) > (wish[False], room[False])
        if to_val:
            drawn.add(image)
        room[to_val] -= 1
        for each in set(classes[image]):
            wanted[each][to_val] -= 1
            holding[each].discard(image)
        del left[image]

    while some := [each for each, images in holding.items() if images]:
        rarest = min(some, key=lambda each: (len(holding[each]), each))
        for image in [image for image in left if image in holding[rarest]]:
            deal(image, rarest)
    for image in list(left):
        deal(image, None)
    if not drawn and len(order) > 1:
        drawn.add(order[0])
    if len(drawn) == len(order) > 1:
        drawn.remove(order[0])
    return drawn


def only(content: Mapping[str, Any], images: set[int]) -> dict[str, Any]:
    """The annotation file with these images alone, and their annotations; its categories all."""
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in images],
        "annotations": [annotation for annotation in content["annotations"] if annotation["image_id"] in images],
    }
