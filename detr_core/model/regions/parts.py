"""Defines the parts of Faster R-CNN: anchors and pooling for any stride, seeded sampling, and matching with objects."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import _utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_convert, roi_align

from detr_core.model.common.host_values import marked_rows, on_device, uploaded
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
        strides = [[torch.full((), stride, device=first.device)] * 2 for stride in self.strides]
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
        image = image_indices([len(box) for box in boxes], maps[0].device)
        corners = torch.cat(boxes)
        rows = torch.cat([image[:, None].to(corners.dtype), corners], 1)
        if len(maps) == 1:
            return self._pooled(maps[0], rows, self.strides[0])
        side = ((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])).sqrt()
        level = (side / (FINEST * self.strides[0]) + 1e-6).log2().floor().clamp(0, len(maps) - 1)
        of_levels = marked_rows(*(level == number for number in range(len(maps))))
        parts = [
            self._pooled(part, rows[chosen], stride) for part, chosen, stride in zip(maps, of_levels, self.strides, strict=True)
        ]
        return torch.cat(parts).index_select(0, torch.cat(of_levels).argsort())

    def _pooled(self, level: Tensor, rows: Tensor, stride: int) -> Tensor:
        return cast(Tensor, roi_align(level, rows, self.cells, 1 / stride, sampling_ratio=2))


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
            order = uploaded(torch.rand(len(label), generator=torch.Generator().manual_seed(seed)), label.device)
            # A label's place decides between equal random numbers, which have 24 bits.
            order = order.double() + 2.0**-48 * torch.arange(len(label), device=label.device)
            positive.append(_first_marked(label > 0, order, self.positive))
            negative.append(_first_marked(label == 0, order, self.count, positive[-1].sum()))
        return positive, negative


def _first_marked(marked: Tensor, order: Tensor, count: int, fewer: Tensor | int = 0) -> Tensor:
    # Returns `marked` reduced to the first `count` - `fewer` marked elements in the order `order`.
    first = order.masked_fill(~marked, torch.inf).topk(min(count, len(marked)), largest=False).indices
    wanted = marked[first] & (torch.arange(len(first), device=marked.device) < count - fewer)
    return torch.zeros_like(marked).scatter(0, first, wanted)


class Matcher(_utils.Matcher):  # type: ignore[misc]
    """torchvision's matcher with the same results. torchvision's makes the host wait for the GPU at every image."""

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        """Matches each box [N] that has the highest IoU of any object with the object of the box's own highest IoU.

        matches: is changed. all_matches: the object of each box's highest IoU. match_quality_matrix [T, N]: the IoU.
        """
        highest = match_quality_matrix.amax(1, keepdim=True)
        matches.copy_(torch.where((match_quality_matrix == highest).any(0), all_matches, matches))


class Heads(RoIHeads):  # type: ignore[misc]
    """torchvision's heads with the same results. torchvision's sampling makes the host wait for the GPU at every image."""

    def subsample(self, labels: list[Tensor]) -> list[Tensor]:
        """Returns the ascending indices of the sampled proposals of each image. labels: see `Sampler`."""
        positive, negative = self.fg_bg_sampler(labels)
        return marked_rows(*(one | other for one, other in zip(positive, negative, strict=True)))


def truth_of(target: Target, size: tuple[int, int]) -> dict[str, Any]:
    """Returns a target as torchvision's heads need it: boxes, xyxy in pixels, labels, which are 1 for the first class, and masks.

    size: (h, w) of the image.
    """
    height, width = size
    boxes = box_convert(target.boxes, "cxcywh", "xyxy") * on_device([width, height, width, height], target.boxes.device)
    return {"boxes": boxes, "labels": target.labels + 1, "masks": target.masks}


def image_indices(counts: list[int], device: torch.device) -> Tensor:
    """Returns the image index of each row, for the number of rows of each image: [2, 1] -> [0, 0, 1]."""
    return torch.cat([torch.full((count,), image, device=device) for image, count in enumerate(counts)])
