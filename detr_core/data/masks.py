"""Masks of the objects of an image, decoded only when asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as rle
from torch import Tensor

from detr_core.data.dataset import DatasetError
from detr_core.data.images import read_segment_ids
from detr_core.data.texts import Texts


class Masks(Protocol):
    """The masks of a dataset's objects, which are numbered through from the first image's to the last one's."""

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        """bool [T, h, w] of the `objects` of the image at this place; size: its (h, w)."""


class InstanceMasks:
    """Polygons or run lengths of `instances_*.json`, as JSON texts."""

    def __init__(self, file: Path, segmentations: Texts) -> None:
        self.file = file
        self.segmentations = segmentations

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        masks = np.zeros((len(objects), *size), dtype=np.bool_)
        for place, number in enumerate(objects):
            masks[place] = self._decoded(json.loads(self.segmentations[number]), size)
        return torch.from_numpy(masks)

    def _decoded(self, segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        try:
            if isinstance(segmentation, list):  # polygons; those of fewer than 3 points cover nothing
                polygons = [_polygon(polygon, size) for polygon in segmentation if len(polygon) >= 6]
                if not polygons:
                    return np.zeros(size, dtype=np.bool_)
                encoded = rle.merge(rle.frPyObjects(polygons, *size))
            else:
                encoded = _run_lengths(segmentation, size)
            mask = rle.decode(encoded).astype(np.bool_)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise DatasetError(f"{self.file}: annotations.segmentation: expected polygons or RLE, found {error}") from None
        return np.asarray(mask)


# What the decoder, which is C, takes on trust. Run lengths that end early it leaves as the memory was.


def _polygon(polygon: Any, size: tuple[int, int]) -> list[float]:
    points = np.array(polygon)
    if points.ndim != 1 or len(points) % 2 or points.dtype.kind not in "iuf":
        raise ValueError("a polygon that isn't a list of x, y, x, y")
    largest = 4 * max(size)  # it walks along every edge pixel by pixel
    if not (np.abs(points.astype(np.float64)) <= largest).all():
        raise ValueError(f"a polygon with points further than {largest} pixels away")
    return list(polygon)


def _run_lengths(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    if not isinstance(segmentation, dict) or not segmentation.keys() >= {"size", "counts"}:
        raise ValueError(f"{segmentation!r:.60}")
    counts = segmentation["counts"]
    if list(segmentation["size"]) != list(size):
        raise ValueError(f"a mask of {segmentation['size']!r} instead of {size[0]} x {size[1]}")
    lengths = _uncompressed(counts) if isinstance(counts, str) else counts
    if not all(type(length) is int and length >= 0 for length in lengths) or sum(lengths) != size[0] * size[1]:
        raise ValueError(f"run lengths that don't add up to {size[0]} x {size[1]} pixels")
    encoded: dict[str, Any] = rle.frPyObjects({"size": list(size), "counts": lengths}, *size)
    return encoded


def _uncompressed(counts: str) -> list[int]:
    """The run lengths of COCO's text: six bits a character, the sixth says that more of the number follow, the fifth of its last
    one is the sign; from the fourth number on each is the difference from the last but one."""
    lengths: list[int] = []
    number = shift = 0
    for code in counts.encode("ascii"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("run lengths that aren't COCO's")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (bits >> 4 & 1) << shift
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("run lengths that end in the middle of a number")
    return lengths


class PanopticMasks:
    """Segments of `panoptic_*.json`: names: of each image's PNG in `folder`, '' where it has none; ids: of every object."""

    def __init__(self, folder: Path, names: Texts, ids: npt.NDArray[np.int32]) -> None:
        self.folder = folder
        self.names = names
        self.ids = ids

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        name = self.names[image]
        if name == "" or len(objects) == 0:
            return torch.zeros(0, *size, dtype=torch.bool)
        return torch.from_numpy(read_segment_ids(self.folder / name, size) == self.ids[objects.start : objects.stop, None, None])
