"""Holds the masks of a dataset's objects, which are decoded only when they are requested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

from detr_core.data.fields import farthest
from detr_core.data.images import read_segment_ids
from detr_core.data.run_lengths import run_lengths
from detr_core.data.splits import DatasetError
from detr_core.data.texts import Texts

if TYPE_CHECKING:
    from torch import Tensor

NO_MASK = "null"  # the JSON text of a missing segmentation


class Masks(Protocol):
    """The masks of a dataset's objects. Objects are numbered in the order of the images."""

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        """Returns the masks of `objects`, bool [T, h, w]. image: the index of their image. size: (h, w) of the image.

        The mask of an object whose annotation has none is False everywhere.
        """

    def has_mask(self, objects: range) -> npt.NDArray[np.bool_]:
        """Returns for each of `objects` whether its annotation has a mask, [T]."""


class InstanceMasks:
    """Masks from `instances_*.json`.

    segmentations: the polygons or run lengths of each object as JSON text, NO_MASK for an object that has only a box.
    """

    def __init__(self, file: Path, segmentations: Texts) -> None:
        self.file = file
        self.segmentations = segmentations

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        import torch  # this takes a second, and the check of a dataset needs no tensors

        masks = np.zeros((len(objects), *size), dtype=np.bool_)
        for row, number in enumerate(objects):
            if (text := self.segmentations[number]) != NO_MASK:
                masks[row] = self._decoded(json.loads(text), size)
        return torch.from_numpy(masks)

    def has_mask(self, objects: range) -> npt.NDArray[np.bool_]:
        return np.array([self.segmentations[number] != NO_MASK for number in objects], dtype=np.bool_)

    def _decoded(self, segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        try:
            return decoded(segmentation, size)
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise DatasetError(f"{self.file}: annotations.segmentation: {error}") from None


def decoded(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Returns the mask, bool [h, w], of polygons or run lengths in an image of `size` (h, w).

    Raises TypeError, ValueError, KeyError, AttributeError or OverflowError for a malformed segmentation.
    """
    if isinstance(segmentation, list):  # polygons of fewer than 3 points cover no pixel
        polygons = [_polygon(polygon, size) for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return np.zeros(size, dtype=np.bool_)
        encoded = rle.merge(rle.frPyObjects(polygons, *size))
    else:
        lengths = run_lengths(segmentation, size)
        encoded = rle.frPyObjects({"size": list(size), "counts": lengths}, *size)
    return np.asarray(rle.decode(encoded).astype(np.bool_))


def _polygon(polygon: Any, size: tuple[int, int]) -> list[float]:
    points = np.array(polygon)
    if points.ndim != 1 or len(points) % 2 or points.dtype.kind not in "iuf":
        raise ValueError("expected polygons as lists of numbers x, y, x, y, found other values")
    largest = farthest(size)
    if not (np.abs(points.astype(np.float64)) <= largest).all():
        raise ValueError(f"expected coordinates of at most {largest} pixels, found larger ones")
    return list(polygon)


class PanopticMasks:
    """Masks from `panoptic_*.json` and its PNGs.

    folder: the folder of the PNGs. names: the file name of each image's PNG, '' if it has none. ids: each object's segment id.
    """

    def __init__(self, folder: Path, names: Texts, ids: npt.NDArray[np.int32]) -> None:
        self.folder = folder
        self.names = names
        self.ids = ids

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        import torch  # this takes a second, and the check of a dataset needs no tensors

        name = self.names[image]
        if name == "" or len(objects) == 0:
            return torch.zeros(0, *size, dtype=torch.bool)
        return torch.from_numpy(read_segment_ids(self.folder / name, size) == self.ids[objects.start : objects.stop, None, None])

    def has_mask(self, objects: range) -> npt.NDArray[np.bool_]:
        return np.ones(len(objects), dtype=np.bool_)
