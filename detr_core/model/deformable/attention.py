"""Multi-scale deformable attention (arXiv 2010.04159, section 4.1): each query attends to a few learned points of every level.

In shapes, N is the number of positions of all levels, which are concatenated level by level and row by row, and P the number of
points per level.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr_core.model.common.host_values import on_device

Sizes = list[tuple[int, int]]


class DeformableAttention(nn.Module):
    """Attention in which each head takes a weighted mean over points x levels. The query determines offsets and weights."""

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.reset()

    def reset(self) -> None:
        """Initialises the weights as published: every head has its own direction, with the p-th point at a distance of p cells.

        All points have the same initial weight.
        """
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # on the square around the reference
        steps = torch.arange(1, self.points + 1)
        offsets = (directions[:, None, None] * steps[:, None]).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, reference: Tensor, memory: Tensor, sizes: Sizes, padding: Tensor | None) -> Tensor:
        """Returns the attention's output [B, Q, D] for query [B, Q, D].

        reference [B, Q, levels, 2]: points (x, y) in 0..1 of each padded level, with offsets in cells of the level; or
        [B, Q, levels, 4]: boxes (cxcywh), with offsets in units of 1 / (2 P) of the box. memory [B, N, D]: the levels' features.
        sizes: (h, w) of each level. padding [B, N]: True where memory counts as zero.
        """
        images, queries, _ = query.shape
        value = self.value_proj(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        value = value.unflatten(-1, (self.heads, -1))
        offsets = self.sampling_offsets(query).view(images, queries, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).view(images, queries, self.heads, -1).softmax(-1)
        weights = weights.unflatten(-1, (self.levels, self.points))
        if reference.shape[-1] == 2:
            widths_and_heights = on_device([side for h, w in sizes for side in (w, h)], reference.device).to(reference.dtype)
            unit = 1 / widths_and_heights.view(-1, 1, 2)
        else:
            unit = reference[:, :, None, :, None, 2:] / (2 * self.points)
        locations = reference[:, :, None, :, None, :2] + offsets * unit
        exact = torch.promote_types(value.dtype, torch.float32)  # locations need more precision than bfloat16
        sampled = sampled_sum(value.to(exact), sizes, locations.to(exact), weights.to(exact))
        return cast(Tensor, self.output_proj(sampled.to(value.dtype)))


def sampled_sum(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """Returns the weighted sum of `value` at `locations`, [B, Q, heads * d]: bilinear between cell centres, zero outside a level.

    value [B, N, heads, d]. sizes: (h, w) of each level, with N positions in all. locations [B, Q, heads, levels, P, 2]: (x, y) in
    0..1 of the level, where (0, 0) is its corner. weights [B, Q, heads, levels, P].
    """
    images, queries, heads = weights.shape[:3]
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # [B heads, Q, levels, P, 2], -1..1
    share = weights.transpose(1, 2).flatten(0, 1)[:, None]  # [B heads, 1, Q, levels, P]
    sums: list[Tensor] = []
    parts = torch.split(value, [h * w for h, w in sizes], dim=1)
    for level, (part, (height, width)) in enumerate(zip(parts, sizes, strict=True)):
        plane = part.permute(0, 2, 3, 1).reshape(images * heads, -1, height, width)
        points = F.grid_sample(plane, grid[:, :, level], mode="bilinear", padding_mode="zeros", align_corners=False)
        sums.append((points * share[..., level, :]).sum(-1))
    total = torch.stack(sums).sum(0)  # [B heads, d, Q]
    return total.view(images, -1, queries).transpose(1, 2)
