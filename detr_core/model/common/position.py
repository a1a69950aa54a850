"""Computes spatial positional encodings (section A.4 of the paper, Table 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr_core.model.common.config import PositionsConfig


def build_positions(config: PositionsConfig, width: int) -> nn.Module:
    """Returns the module that maps padding [B, H, W] (True on padding) to encodings [B, D, H, W]."""
    if config.kind == "sine":
        return SinePositions(width // 2)
    if config.kind == "learned":
        return LearnedPositions(config.cells, width // 2)
    return NoPositions(width)


class SinePositions(nn.Module):
    """Fixed encodings: sines and cosines of the normalised coordinates, D / 2 features for y, then D / 2 for x.

    Coordinates range from 0 to 2 pi over each image without its padding.
    """

    def __init__(self, features: int, temperature: float = 10000.0) -> None:
        super().__init__()
        self.features = features
        self.temperature = temperature

    def forward(self, padding: Tensor) -> Tensor:
        valid = ~padding
        y = valid.cumsum(1, dtype=torch.float32)
        x = valid.cumsum(2, dtype=torch.float32)
        y = y / (y[:, -1:, :] + 1e-6) * (2 * math.pi)
        x = x / (x[:, :, -1:] + 1e-6) * (2 * math.pi)
        exponent = torch.arange(self.features, device=padding.device).div(2, rounding_mode="floor") * 2 / self.features
        frequency = self.temperature**exponent
        encoding = torch.cat([_interleave(y[..., None] / frequency), _interleave(x[..., None] / frequency)], dim=-1)
        return encoding.permute(0, 3, 1, 2)


class LearnedPositions(nn.Module):
    """Learned encodings: a vector for each row and each column, D / 2 features for x, then D / 2 for y.

    Maps with more rows or columns than the table interpolate it linearly; smaller maps use its first cells.
    """

    def __init__(self, cells: int, features: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(cells, features)
        self.col_embed = nn.Embedding(cells, features)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, padding: Tensor) -> Tensor:
        images, height, width = padding.shape
        x = _first_cells(self.col_embed.weight, width).expand(height, -1, -1)
        y = _first_cells(self.row_embed.weight, height)[:, None].expand(-1, width, -1)
        return torch.cat([x, y], dim=-1).permute(2, 0, 1).expand(images, -1, -1, -1)


class NoPositions(nn.Module):
    """Encodings of zero, so that the transformer sees an unordered set of features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, padding: Tensor) -> Tensor:
        images, height, width = padding.shape
        return torch.zeros(images, self.width, height, width, device=padding.device)


def _interleave(angles: Tensor) -> Tensor:
    # Feature 2i is the sine and feature 2i + 1 the cosine of the same frequency.
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def _first_cells(table: Tensor, count: int) -> Tensor:
    if count <= len(table):
        return table[:count]
    return F.interpolate(table.T[None], size=count, mode="linear", align_corners=True)[0].T
