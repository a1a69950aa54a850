"""Defines the configuration of Deformable DETR."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from detr_core.config import require, require_between
from detr_core.model.common.config import BackboneConfig, architecture_fields, require_stages
from detr_core.model.transformer.config import require_transformer

MOST_LEVELS = 16  # with each level the resolution halves, and no image has more than 65,535 pixels on a side
MOST_POINTS = 1_000
MOST_PROPOSING_LEVELS = 5  # the side of a position's box, 0.05 at the first level, doubles at each; at the sixth it exceeds 1


@dataclass(frozen=True)
class DeformableConfig:
    """Deformable DETR (arXiv 2010.04159): attention at a few learned points of several feature maps.

    stages: the backbone's stages whose maps are used, finest first. levels: the total number of feature maps; each additional map
    has half the resolution of the one before. The paper uses four levels of the stages [2, 3, 4], or the single level of stage 4,
    which alone can be dilated. points: the number of points that each head samples in each level. refine: whether each decoder
    layer corrects the boxes of the previous layer with its own heads (the paper's iterative box refinement). two_stage: whether
    the queries are made from the boxes that the encoder predicts at the positions of its maps, and not learned; this requires
    `refine`, and `queries` is the number of these boxes. encoded_point: the point of a cell that its positional encoding, of
    sines, describes: its `center`, as published, or its `end`, as in DETR. The other fields have the same meaning as in
    DetrConfig.
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
    two_stage: bool = field(default=False, metadata={"optional": True})
    encoded_point: Literal["center", "end"] = field(default="end", metadata={"optional": True})
    kind: Literal["deformable"] = "deformable"

    def __post_init__(self) -> None:
        require_stages(self.stages)
        fits = len(self.stages) <= self.levels <= MOST_LEVELS
        require(fits, "levels", f"the number of stages, {len(self.stages)}, to {MOST_LEVELS}", self.levels)
        dilated = self.backbone.dilation
        require(self.levels == 1 or not dilated, "backbone.dilation", "false with several levels, which halve in size", dilated)
        require_between(1, MOST_POINTS, "points", self.points)
        if self.two_stage:
            require(self.refine, "refine", "true with two_stage, whose decoder corrects the encoder's boxes", self.refine)
            most = MOST_PROPOSING_LEVELS
            require(self.levels <= most, "levels", f"{most} or fewer with two_stage", self.levels)
        require_transformer(self, multiple=math.lcm(4 * self.heads, 32))


def architecture(config: DeformableConfig) -> dict[str, Any]:
    """Returns the fields that determine the shapes and meaning of a detector's weights, as a flat mapping.

    Two detectors with equal fields can exchange weights. The number of queries of a two-stage detector is left out, because they
    are not learned.
    """
    fields = architecture_fields(config)
    if config.two_stage:
        del fields["queries"]
    return fields
