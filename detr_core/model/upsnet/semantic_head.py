"""UPSNet's semantic head (section 3 of arXiv 1901.03784): one subnet of deformable convolutions for all levels of a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DeformConv2d

CONVOLUTIONS = 3


class SemanticHead(nn.Module):
    """Predicts the class of each pixel from the levels of a pyramid, at the resolution of the finest level.

    Each level goes through the same convolutions and is resized to the finest level. The concatenated levels then go through a
    1 x 1 convolution.

    channels: the number of channels of the pyramid. width: the number of channels of the convolutions. levels: the number
    of levels. classes: the number of classes, stuff and things.
    """

    def __init__(self, channels: int, width: int, levels: int, classes: int) -> None:
        super().__init__()
        inputs = [channels] + [width] * (CONVOLUTIONS - 1)
        self.subnet = nn.Sequential(*(DeformableConvolution(count, width) for count in inputs))
        self.classifier = nn.Conv2d(levels * width, classes, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns class logits [B, classes, h, w]. maps: [B, channels, h, w] of each level, finest first."""
        size = maps[0].shape[-2:]
        levels = [F.interpolate(self.subnet(level), size, mode="bilinear", align_corners=False) for level in maps]
        logits: Tensor = self.classifier(torch.cat(levels, 1))
        return logits


class DeformableConvolution(nn.Module):
    """A 3 x 3 deformable convolution with ReLU. A convolution predicts the offsets of its nine points, which are 0 at first."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(channels, 2 * 9, kernel_size=3, padding=1)
        self.convolution = DeformConv2d(channels, width, kernel_size=3, padding=1)
        for parameter in self.offsets.parameters():
            nn.init.zeros_(parameter)
        # As there is no normalisation, the initial weights must keep the scale of the maps.
        nn.init.kaiming_normal_(self.convolution.weight, nonlinearity="relu")

    def forward(self, maps: Tensor) -> Tensor:
        """Returns [B, width, h, w] of maps [B, channels, h, w]."""
        return F.relu(self.convolution(maps, self.offsets(maps)))
