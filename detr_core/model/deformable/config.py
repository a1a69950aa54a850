"""Defines the configuration of Deformable DETR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from detr_core.config import require
from detr_core.model.common.config import BackboneConfig, require_stages, require_transformer


@dataclass(frozen=True)
class DeformableConfig:
    """Deformable DETR (arXiv 2010.04159): attention at a few learned points of several feature maps.

    stages: the backbone's stages whose maps are used, finest first. levels: the total number of feature maps; each additional map
    has half the resolution of the one before. points: the number of points that each head samples in each level. refine: whether
    each decoder layer corrects the boxes of the previous layer with its own heads (the paper's iterative box refinement). The
    other fields have the same meaning as in DetrConfig. Positional encodings are sines.
    """

    backbone: BackboneConfig
    stages: tuple[int, ...]
    levels: int
    points: int
    width: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    dropout: float
    pre_norm: bool
    refine: bool
    kind: Literal["deformable"] = "deformable"

    def __post_init__(self) -> None:
        require_stages(self.stages)
        require(self.levels >= len(self.stages), "levels", f"at least the number of stages, {len(self.stages)}", self.levels)
        require(self.points >= 1, "points", "1 or more", self.points)
        require_transformer(self, multiple=math.lcm(4 * self.heads, 32))
