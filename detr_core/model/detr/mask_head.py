"""Defines the mask head (section 4.4 and Figure 8 of the paper): attention maps of queries, refined by an FPN-style network.

A mask depends only on its own query, so the head runs only on the queries whose masks are needed. In shapes, K is the number of
these (image, query) pairs. Names of modules and weights are those of the published checkpoints.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from detr_core.model.detr.config import AttentionMaps


class AttentionMap(nn.Module):
    """Computes attention maps of queries: the attention of each head to each position.

    softmax: with 'published' the maps of all heads together sum to 1, which the published weights require; with 'per_head' each
    map sums to 1.
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
        """Returns maps [K, heads, h, w] for queries [B, Q, D], memory [B, D, h, w], padding [B, h, w], image and query [K]."""
        height, width = memory.shape[-2:]
        images, slots, d = queries.shape
        q: Tensor = self.q_linear(queries).view(images, slots, self.heads, -1).transpose(1, 2)
        k: Tensor = self.k_linear(memory.flatten(2).transpose(1, 2)).view(images, -1, self.heads, d // self.heads)
        scores = (q / math.sqrt(d // self.heads)) @ k.permute(0, 2, 3, 1)
        scores = scores.masked_fill(padding.flatten(1)[:, None, None], float("-inf"))
        selection = scores[image, :, query]
        maps = selection.softmax(-1) if self.softmax == "per_head" else selection.flatten(1).softmax(-1)
        return maps.view(-1, self.heads, height, width)


class QueryFeatures(nn.Module):
    """Replaces attention maps by features of the query, one per head, that are equal at every position.

    The mask head then knows the query, but gets no information about where its object is.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, heads)

    def forward(self, queries: Tensor, memory: Tensor, padding: Tensor, image: Tensor, query: Tensor) -> Tensor:
        """Returns maps [K, heads, h, w]; the arguments are those of AttentionMap."""
        features: Tensor = self.linear(queries[image, query])
        return features[:, :, None, None].expand(-1, -1, *memory.shape[-2:])


class MaskHead(nn.Module):
    """Convolutions with GroupNorm that upsample attention maps to the finest backbone map, with one mask per query.

    width: the transformer's width D. pyramid: the channels of the backbone maps that are added, coarsest (stage 3) first.
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
        """Returns mask logits [K, H, W] at the size of the map of stage 1.

        projected [B, D, h, w]: the projected backbone map. maps [K, heads, h, w]: the attention maps. pyramid: the backbone maps
        of stages 3, 2, 1. image [K]: the image of each query.
        """
        # The first convolution takes the image's features and the query's maps. Because it is linear, its image part is computed
        # once per image instead of once per query.
        weight = self.lay1.weight
        image_part = F.conv2d(projected, weight[:, : self.width], self.lay1.bias, padding=1)
        x = _for_queries(image_part, image) + F.conv2d(maps, weight[:, self.width :], padding=1)
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
    return _for_queries(features, image) + F.interpolate(x, size=features.shape[-2:], mode="nearest")


def _for_queries(features: Tensor, image: Tensor) -> Tensor:
    # features[image] would not be deterministic: threads would add the gradients of an image's queries in varying order.
    return features.index_select(0, image)


def _convolution(channels_in: int, channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, kernel_size=3, padding=1)


def _group_norm(channels: int) -> nn.GroupNorm:
    # 8 groups as published. Narrower heads get fewer groups, with at least two channels each like the narrowest published layer,
    # because normalising a single channel would remove the information about how much of the image it covers.
    return nn.GroupNorm(min(math.gcd(8, channels), channels // 2), channels)
