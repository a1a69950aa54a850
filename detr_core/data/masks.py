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


class Masks(Protocol):
    """The masks of a dataset's objects, which are numbered through from the first image's to the last one's."""

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        """bool [T, h, w] of the `objects` of the image at this place; size: its (h, w)."""


class InstanceMasks:
    """Polygons or run lengths of `instances_*.json`.

    They are kept as one long text: a Python object for every coordinate would take COCO to tens of gigabytes, and copies of
    them into every loader process.
    """

    def __init__(self, file: Path, segmentations: list[Any]) -> None:
        texts = [json.dumps(segmentation, separators=(",", ":")).encode() for segmentation in segmentations]
        self.file = file
        self.texts = b"".join(texts)
        self.starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        masks = np.zeros((len(objects), *size), dtype=np.bool_)
        for place, number in enumerate(objects):
            segmentation = json.loads(self.texts[self.starts[number] : self.starts[number + 1]])
            masks[place] = self._decoded(segmentation, size)
        return torch.from_numpy(masks)

    def _decoded(self, segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        try:
            if isinstance(segmentation, list):  # polygons; those of fewer than 3 points cover nothing
                polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
                encoded = rle.merge(rle.frPyObjects(polygons, *size))
            elif isinstance(segmentation["counts"], list):
                encoded = rle.frPyObjects(segmentation, *size)
            else:
                encoded = segmentation
            mask = rle.decode(encoded).astype(np.bool_)
        except (TypeError, ValueError, KeyError) as error:
            raise DatasetError(f"{self.file}: annotations.segmentation: expected polygons or RLE, found {error}") from None
        if mask.shape != size:
            found = " x ".join(map(str, mask.shape))
            raise DatasetError(f"{self.file}: annotations.segmentation: expected a mask of {size[0]} x {size[1]}, found {found}")
        return np.asarray(mask)


class PanopticMasks:
    """Segments of `panoptic_*.json`: files: the PNG of each image, None where an image has none; ids: of every object."""

    def __init__(self, files: list[Path | None], ids: npt.NDArray[np.int32]) -> None:
        self.files = files
        self.ids = ids

    def of(self, image: int, objects: range, size: tuple[int, int]) -> Tensor:
        file = self.files[image]
        if file is None or len(objects) == 0:
            return torch.zeros(0, *size, dtype=torch.bool)
        return torch.from_numpy(read_segment_ids(file, size) == self.ids[objects.start : objects.stop, None, None])
