"""Defines the box head that DETR and Deformable DETR share."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class BoxHead(nn.Module):
    """A three-layer perceptron that predicts box logits, whose sigmoid is cxcywh, normalised to 0..1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)])

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return cast(Tensor, last(F.relu(second(F.relu(first(x))))))
