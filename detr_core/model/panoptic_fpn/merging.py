"""Merges instances and a semantic segmentation into a panoptic map (arXiv 1901.02446, section 3, and its Detectron2 version)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_core.model.panoptic_fpn.config import PanopticFpnMergingConfig

OTHER = 0  # the semantic class of pixels that belong to things


@dataclass(frozen=True)
class MergedSegment:
    """A segment of a merged map.

    id: the value of its pixels, 1 or more. instance: the row of its instance, None for stuff. label: the class of the
    instance, or the semantic class of stuff, 1 or more. area: the number of its pixels.
    """

    id: int
    instance: int | None
    label: int
    area: int


def merged(
    semantic: NDArray[np.integer],
    masks: NDArray[np.bool_],
    scores: Sequence[float],
    classes: Sequence[int],
    config: PanopticFpnMergingConfig,
) -> tuple[NDArray[np.int32], list[MergedSegment]]:
    """Returns the panoptic map of an image, [H, W] with 0 where there is no segment, and its segments in the order of their ids.

    semantic [H, W]: OTHER, or a class of stuff. masks [N, H, W], scores [N], classes [N]: the instances.
    Instances are placed by descending score, those of equal scores in the given order. An instance below `config.score` is left
    out, and an instance of which more than the share `config.overlap` is taken. The others get their free pixels. Then each class
    of stuff, in ascending order, gets what is still free, unless that is less than `config.stuff_area` pixels.
    """
    ids = np.zeros(semantic.shape, dtype=np.int32)
    segments: list[MergedSegment] = []
    for row in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable").tolist():
        if scores[row] < config.score:
            break
        area = int(np.count_nonzero(masks[row]))
        free = masks[row] & (ids == 0)
        remaining = int(np.count_nonzero(free))
        if remaining == 0 or area - remaining > config.overlap * area:
            continue
        segments.append(MergedSegment(len(segments) + 1, row, int(classes[row]), remaining))
        ids[free] = segments[-1].id
    for label in np.unique(semantic).tolist():
        free = (semantic == label) & (ids == 0)
        remaining = int(np.count_nonzero(free))
        if label != OTHER and remaining > 0 and remaining >= config.stuff_area:
            segments.append(MergedSegment(len(segments) + 1, None, int(label), remaining))
            ids[free] = segments[-1].id
    return ids, segments
