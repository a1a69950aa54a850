"""Encodes boxes as deltas from other boxes, and decodes them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection import _utils


class BoxCoder(_utils.BoxCoder):  # type: ignore[misc]
    """torchvision's box coder with the same results. torchvision's copies its weights from the host for every box coding.

    center, size: the factors of the deltas of a box's centre and of the logarithms of its width and height.
    """

    def __init__(self, center: float, size: float) -> None:
        super().__init__((center, center, size, size))
        self.center, self.size = center, size

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Returns the deltas [N, 4] from `proposals` to `reference_boxes`, both [N, 4], xyxy."""
        (center, size), (wanted_center, wanted_size) = _center_and_size(proposals), _center_and_size(reference_boxes)
        moved = self.center * (wanted_center - center) / size
        return torch.cat([moved, self.size * torch.log(wanted_size / size)], 1)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Returns boxes [N, 4 K], xyxy, for K times four deltas of each box. rel_codes [N, 4 K]. boxes [N, 4]: xyxy."""
        center, size = (value[:, None] for value in _center_and_size(boxes))
        deltas = rel_codes.view(len(rel_codes), rel_codes.shape[1] // 4, 4)
        moved = deltas[..., :2] / self.center * size + center
        half = 0.5 * (torch.exp((deltas[..., 2:] / self.size).clamp(max=self.bbox_xform_clip)) * size)
        return torch.cat([moved - half, moved + half], 2).flatten(1)


def _center_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes[:, :2] + 0.5 * size, size
