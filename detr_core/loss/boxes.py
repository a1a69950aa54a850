"""Computes the generalised IoU of boxes (section A.2 of the paper, equation 11)."""

from __future__ import annotations

import torch
from torch import Tensor


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Returns the GIoU, in -1..1, of boxes `a` and `b`, [..., 4] in cxcywh, which broadcast against each other.

    The GIoU of two boxes without area is 0, not NaN.
    """
    a_low, a_high = a[..., :2] - a[..., 2:] / 2, a[..., :2] + a[..., 2:] / 2
    b_low, b_high = b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2
    overlap = (torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0)
    hull = torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)
    intersection = overlap[..., 0] * overlap[..., 1]
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - intersection
    enclosing = hull[..., 0] * hull[..., 1]
    tiny = torch.finfo(a.dtype).tiny
    return intersection / union.clamp(min=tiny) - (enclosing - union) / enclosing.clamp(min=tiny)
