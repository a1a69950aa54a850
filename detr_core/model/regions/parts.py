"""Defines the parts of Faster R-CNN: anchors and pooling for any stride, and seeded sampling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert, roi_align

from detr_core.structures import Target

ASPECTS = (0.5, 1.0, 2.0)  # height / width of the anchors of each size
FINEST = 14  # a proposal is pooled from the level where its side is 14 to 28 cells of the map, as published


class Anchors(AnchorGenerator):  # type: ignore[misc]
    """A generator of anchors with the given sizes and the given stride of each level.

    torchvision derives the strides from the sizes of the maps, which is wrong if they do not divide the image's size.
    """

    def __init__(self, sizes: tuple[tuple[float, ...], ...], strides: list[int]) -> None:
        super().__init__(sizes, (ASPECTS,) * len(sizes))
        self.strides = strides

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Returns the concatenated anchors of all levels for each image, xyxy in pixels [A, 4]. They are equal for all images."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        strides = [[torch.tensor(stride, device=first.device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors([level.shape[-2:] for level in feature_maps], strides))
        return [anchors for _ in image_list.image_sizes]


class Pooling(nn.Module):
    """RoIAlign from the level that fits a proposal's size. torchvision's version assumes that strides are powers of two.

    cells: the height and the width of a proposal's pooled features.
    """

    def __init__(self, strides: list[int], cells: int) -> None:
        super().__init__()
        self.strides, self.cells = strides, cells

    def forward(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Returns pooled features [R, D, cells, cells] of the boxes of all images.

        maps: [B, D, h, w] per level, finest first. boxes: [R_i, 4] per image, xyxy in pixels.
        """
        side = torch.cat([((box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])).sqrt() for box in boxes])
        level = (side / (FINEST * self.strides[0]) + 1e-6).log2().floor().clamp(0, len(maps) - 1)
        image = image_indices([len(box) for box in boxes], side.device)
        rows = torch.cat([image[:, None].to(side.dtype), torch.cat(boxes)], 1)
        pooled = maps[0].new_zeros(len(rows), maps[0].shape[1], self.cells, self.cells)
        for number, (part, stride) in enumerate(zip(maps, self.strides, strict=True)):
            chosen = (level == number).nonzero()[:, 0]
            pooled = pooled.index_copy(0, chosen, roi_align(part, rows[chosen], self.cells, 1 / stride, sampling_ratio=2))
        return pooled


class Sampler:
    """Samples at most `count` of an image's anchors or proposals, with at most the fraction `share` positive.

    It replaces torchvision's sampler, and uses the seeds that it is given. seeds: the seed of each image of the batch, which is
    set before every call.
    """

    def __init__(self, count: int, share: float) -> None:
        self.count, self.positive = count, int(count * share)
        self.seeds: list[int] = []

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the sampled positives and the sampled negatives of each image as bool [A].

        labels: [A] per image, above 0 for positives, 0 for negatives.
        """
        positive, negative = [], []
        for label, seed in zip(labels, self.seeds, strict=True):
            order = torch.rand(len(label), generator=torch.Generator().manual_seed(seed)).to(label.device)
            sampled_positives = _first_marked(label > 0, order, self.positive)
            positive.append(sampled_positives)
            negative.append(_first_marked(label == 0, order, self.count - int(sampled_positives.sum())))
        return positive, negative


def _first_marked(marked: Tensor, order: Tensor, count: int) -> Tensor:
    # Returns `marked` reduced to the first `count` marked elements in the order `order`.
    chosen = torch.zeros_like(marked)
    candidates = marked.nonzero()[:, 0]
    chosen[candidates[order[candidates].argsort()[:count]]] = True
    return chosen


def truth_of(target: Target, size: tuple[int, int]) -> dict[str, Any]:
    """Returns a target as torchvision's heads need it: boxes, xyxy in pixels, labels, which are 1 for the first class, and masks.

    size: (h, w) of the image.
    """
    height, width = size
    boxes = box_convert(target.boxes, "cxcywh", "xyxy") * target.boxes.new_tensor([width, height, width, height])
    return {"boxes": boxes, "labels": target.labels + 1, "masks": target.masks}


def image_indices(counts: list[int], device: torch.device) -> Tensor:
    """Returns the image index of each row, for the number of rows of each image: [2, 1] -> [0, 0, 1]."""
    return torch.arange(len(counts), device=device).repeat_interleave(torch.tensor(counts, device=device))
