"""Reads the masks of detections and the panoptic maps from the output of a detector of any kind that predicts masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from detr_core.evaluate.boxes import Detections, scaled_to
from detr_core.evaluate.config import EvaluateConfig
from detr_core.evaluate.inference import Classes, query_masks
from detr_core.evaluate.masks import instance_masks, over_image
from detr_core.evaluate.panoptic import kept_queries, merge
from detr_core.model.common.detector import Detector
from detr_core.model.spec import kind_of
from detr_core.structures import AnyOutput, ImageRegions, RegionOutput, Segment, SoftmaxOutput


@dataclass(frozen=True)
class Extent:
    """The sizes (h, w) of an image of a batch. padded: of the whole batch. size: as the network gets it. original: on disk."""

    padded: tuple[int, int]
    size: tuple[int, int]
    original: tuple[int, int]


class Segmentation(Protocol):
    """The masks that a detector predicted for the images of a batch."""

    def instances(self, image: int, detections: Detections) -> Tensor:
        """Returns the masks of detections in an image of the batch, bool [N, *original size]."""

    def panoptic(self, image: int) -> tuple[np.ndarray, list[Segment]]:
        """Returns the panoptic map of an image of the batch, as `detr_core.evaluate.panoptic.merge` does.

        Pixels of no segment are -1; without segments the map has no meaning.
        """


def segmentation(
    model: Detector,
    output: AnyOutput,
    detections: Sequence[Detections],
    extents: Sequence[Extent],
    classes: Classes,
    merging: EvaluateConfig | None,
) -> Segmentation:
    """Returns the masks in the output of a detector that predicts masks.

    detections: those of each image whose masks will be read. extents: of each image. merging: says how panoptic maps are made;
    None if none will be read. Segments of classes that `classes` does not know are left out of the maps.
    """
    if isinstance(output, RegionOutput):
        return _RegionMasks(model, output, extents, classes, merging)
    assert isinstance(output, SoftmaxOutput), "only detectors with this output can have a mask head"
    return _QueryMasks(model, output, detections, extents, classes, merging)


class _QueryMasks:
    """The masks of DETR's queries. The mask head runs once, and only on the queries whose masks are needed."""

    def __init__(
        self,
        model: Detector,
        output: SoftmaxOutput,
        detections: Sequence[Detections],
        extents: Sequence[Extent],
        classes: Classes,
        merging: EvaluateConfig | None,
    ) -> None:
        self.extents, self.isthing, self.config = extents, classes.isthing, merging
        logits = output.logits[-1].cpu()
        self.labels = logits.argmax(-1)
        self.merged = torch.zeros(self.labels.shape, dtype=torch.bool)
        if merging is not None:
            self.merged = kept_queries(logits, merging.panoptic.threshold) & classes.known[self.labels]
        needed = self.merged.clone()
        for i, image in enumerate(detections):
            needed[i, image.queries] = True
        self.logits, self.row = query_masks(model, output, needed)

    def instances(self, image: int, detections: Detections) -> Tensor:
        extent = self.extents[image]
        rows = self.logits[self.row[image, detections.queries]]
        return instance_masks(rows, extent.padded, extent.size, extent.original)

    def panoptic(self, image: int) -> tuple[np.ndarray, list[Segment]]:
        assert self.config is not None
        extent, merged = self.extents[image], self.merged[image]
        sizes = (extent.padded, extent.size, extent.original)
        rows = self.logits[self.row[image, merged]]
        return merge(self.labels[image, merged], rows, *sizes, self.isthing, self.config.panoptic)


class _RegionMasks:
    """The masks of a detector that predicts masks by itself."""

    def __init__(
        self,
        model: Detector,
        output: RegionOutput,
        extents: Sequence[Extent],
        classes: Classes,
        merging: EvaluateConfig | None,
    ) -> None:
        self.model, self.output, self.extents, self.known = model, output, extents, classes.known[:-1]
        name = kind_of(model.config.kind).merging
        self.merging: Any = None if merging is None or name is None else getattr(merging, name)

    def instances(self, image: int, detections: Detections) -> Tensor:
        regions = self._regions(image)
        return self.model.instance_masks(regions.chosen(detections.queries.to(regions.boxes.device)))

    def panoptic(self, image: int) -> tuple[np.ndarray, list[Segment]]:
        assert self.output.semantic is not None
        extent, regions = self.extents[image], self._regions(image)
        semantic = over_image(self.output.semantic[image], extent.padded, extent.size)
        if extent.size != extent.original:
            semantic = F.interpolate(semantic[None], size=extent.original, mode="bilinear", align_corners=False)[0]
        known = regions.chosen(self.known.to(regions.labels.device)[regions.labels])
        id_map, segments = self.model.panoptic_map(replace(known, semantic=semantic), self.merging)
        return _of_known(id_map, segments, self.known)

    def _regions(self, image: int) -> ImageRegions:
        output, size = self.output, self.extents[image].original
        assert output.mask_logits is not None, "expected the output of a detector that predicts masks"
        boxes = scaled_to(size, output.boxes[image])
        return ImageRegions(size, boxes, output.scores[image], output.labels[image], output.mask_logits[image], None)


def _of_known(id_map: np.ndarray, segments: list[Segment], known: Tensor) -> tuple[np.ndarray, list[Segment]]:
    """Returns a panoptic map without the segments of unknown classes, whose pixels become -1."""
    unknown = [segment["id"] for segment in segments if not known[segment["category_id"]]]
    if not unknown:
        return id_map, segments
    kept = [segment for segment in segments if segment["id"] not in unknown]
    return np.where(np.isin(id_map, unknown), -1, id_map), kept
