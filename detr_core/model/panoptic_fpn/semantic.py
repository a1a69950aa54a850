"""Defines Panoptic FPN's semantic branch (arXiv 1901.02446, section 3): a class of stuff, or 'other', for each pixel."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr_core.model.panoptic_fpn.config import GROUPS


class SemanticBranch(nn.Module):
    """Convolutions that bring every level of a pyramid to the resolution of the finest one, where their sum is classified.

    width: the number of channels of the pyramid. strides: the stride of each level, finest first. hidden: the number of channels
    of the branch. channels: the number of classes. A level of 2^n times the finest stride has n stages of 3x3 convolution,
    group norm, ReLU and bilinear upsampling by 2. The finest level has one stage without upsampling.
    """

    def __init__(self, width: int, strides: Sequence[int], hidden: int, channels: int) -> None:
        super().__init__()
        self.doublings = [round(math.log2(stride / strides[0])) for stride in strides]
        self.levels = nn.ModuleList(
            nn.ModuleList(_stage(width if number == 0 else hidden, hidden) for number in range(max(1, doublings)))
            for doublings in self.doublings
        )
        self.predictor = nn.Conv2d(hidden, channels, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as in Detectron2
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns logits [B, channels, h, w] at the resolution of the finest map. maps: [B, width, h, w] per level."""
        height, width = maps[0].shape[-2:]
        at_finest = []
        for level, doublings, stages in zip(maps, self.doublings, self.levels, strict=True):
            x = level
            assert isinstance(stages, nn.ModuleList)
            for number, stage in enumerate(stages, start=1):
                x = stage(x)
                if doublings > 0:  # to the size of the map with this stride, which is not always twice the last size
                    remaining = 2 ** (doublings - number)
                    size = (math.ceil(height / remaining), math.ceil(width / remaining))
                    x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
            at_finest.append(x)
        logits: Tensor = self.predictor(functools.reduce(torch.add, at_finest))
        return logits


def _stage(width: int, hidden: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, hidden, kernel_size=3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, hidden), nn.ReLU())
