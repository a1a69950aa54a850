"""The mask head (section 4.4, Figure 8): attention maps of chosen queries, refined by an FPN-style convolutional network.

Everything here is per query, so running it on the matched or the kept queries alone gives what running all of them gives.
Names of modules and weights are those of the published checkpoints. K stands for the chosen (image, query) pairs.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from detr_core.model.config import AttentionMaps


class AttentionMap(nn.Module):
    """How much each head of a query attends to each position.

    softmax: 'released' makes the heads' maps sum to one together, which released weights depend on; 'per_head' each of them.
    """

    def __init__(self, width: int, heads: int, softmax: AttentionMaps) -> None:
        super().__init__()
        self.heads, self.softmax = heads, softmax
        self.q_linear = nn.Linear(width, width)
        self.k_linear = nn.Linear(width, width)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, memory: Tensor, padding: Tensor, image: Tensor, query: Tensor) -> Tensor:
        """queries [B, Q, D], memory [B, D, h, w], padding [B, h, w], image and query [K] -> maps [K, heads, h, w]."""
        height, width = memory.shape[-2:]
        images, slots, d = queries.shape
        q: Tensor = self.q_linear(queries).view(images, slots, self.heads, -1).transpose(1, 2)
        k: Tensor = self.k_linear(memory.flatten(2).transpose(1, 2)).view(images, -1, self.heads, d // self.heads)
        scores = (q / math.sqrt(d // self.heads)) @ k.permute(0, 2, 3, 1)
        scores = scores.masked_fill(padding.flatten(1)[:, None, None], float("-inf"))
        chosen = scores[image, :, query]
        maps = chosen.softmax(-1) if self.softmax == "per_head" else chosen.flatten(1).softmax(-1)
        return maps.view(-1, self.heads, height, width)


class QueryFeatures(nn.Module):
    """What stands in for attention maps where there are none: as many features of the query, the same at every position.

    The head then knows which object it is about, but nobody has looked for it in the image.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, heads)

    def forward(self, queries: Tensor, memory: Tensor, padding: Tensor, image: Tensor, query: Tensor) -> Tensor:
        """As AttentionMap."""
        features: Tensor = self.linear(queries[image, query])
        return features[:, :, None, None].expand(-1, -1, *memory.shape[-2:])


class MaskHead(nn.Module):
    """Convolutions with GroupNorm that take the attention maps up to the finest backbone map, one mask a query.

    width: D. pyramid: channels of the backbone maps that are joined, coarsest (stage 3) first.
    """

    def __init__(self, width: int, heads: int, pyramid: list[int]) -> None:
        super().__init__()
        first = width + heads
        dims = [first, width // 2, width // 4, width // 8, width // 16]
        self.width = width
        self.lay1, self.gn1 = _convolution(first, first), _group_norm(first)
        self.lay2, self.gn2 = _convolution(dims[0], dims[1]), _group_norm(dims[1])
        self.lay3, self.gn3 = _convolution(dims[1], dims[2]), _group_norm(dims[2])
        self.lay4, self.gn4 = _convolution(dims[2], dims[3]), _group_norm(dims[3])
        self.lay5, self.gn5 = _convolution(dims[3], dims[4]), _group_norm(dims[4])
        self.out_lay = _convolution(dims[4], 1)
        self.adapter1 = nn.Conv2d(pyramid[0], dims[1], 1)
        self.adapter2 = nn.Conv2d(pyramid[1], dims[2], 1)
        self.adapter3 = nn.Conv2d(pyramid[2], dims[3], 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, projected: Tensor, maps: Tensor, pyramid: tuple[Tensor, ...], image: Tensor) -> Tensor:
        """projected [B, D, h, w], maps [K, heads, h, w], pyramid: backbone maps of stages 3, 2, 1, image [K].

        Returns mask logits [K, H, W] at the size of the stage 1 map.
        """
        # The first convolution sees the image's features and the query's maps side by side; being linear, its image part is
        # computed once an image instead of once a query.
        weight = self.lay1.weight
        of_image = F.conv2d(projected, weight[:, : self.width], self.lay1.bias, padding=1)
        x = _of_queries(of_image, image) + F.conv2d(maps, weight[:, self.width :], padding=1)
        x = F.relu(self.gn1(x))
        x = F.relu(self.gn2(self.lay2(x)))
        x = _join(x, self.adapter1(pyramid[0]), image)
        x = F.relu(self.gn3(self.lay3(x)))
        x = _join(x, self.adapter2(pyramid[1]), image)
        x = F.relu(self.gn4(self.lay4(x)))
        x = _join(x, self.adapter3(pyramid[2]), image)
        x = F.relu(self.gn5(self.lay5(x)))
        logits: Tensor = self.out_lay(x)
        return logits[:, 0]


def _join(x: Tensor, features: Tensor, image: Tensor) -> Tensor:
    return _of_queries(features, image) + F.interpolate(x, size=features.shape[-2:], mode="nearest")


def _of_queries(features: Tensor, image: Tensor) -> Tensor:
    # Not features[image]: where queries share an image several threads would add up its gradient in the order they come.
    return features.index_select(0, image)


def _convolution(channels_in: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, padding=1)


def _group_norm(channels: int) -> nn.GroupNorm:
    # 8 groups as published. Narrower heads get as many as divide them with two channels each, as the narrowest published have:
    # a channel alone in its group would lose how much of the image it covers.
    return nn.GroupNorm(min(math.gcd(8, channels), channels // 2), channels)
