"""Defines the configuration of DETR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from detr_core.config import as_dict, flatten
from detr_core.model.common.config import BackboneConfig, PositionsConfig, require_transformer

AttentionMaps = Literal["published", "per_head", "none"]
"""The mask head's attention maps: 'published' has one softmax over all heads and pixels, 'per_head' one per head; or no maps."""


@dataclass(frozen=True)
class DetrConfig:
    """DETR: backbone, encoder, decoder with object queries (section 3.2 of the paper).

    width: the transformer's width d. feed_forward: the hidden width of its FFNs; 0 leaves them out. queries: the number of object
    queries. pre_norm: whether LayerNorm comes before instead of after each sublayer. shared_heads: whether all decoder layers
    share one class head and one box head.
    """

    backbone: BackboneConfig
    positions: PositionsConfig
    width: int
    heads: int
    feed_forward: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    dropout: float
    pre_norm: bool
    shared_heads: bool
    kind: Literal["detr"] = "detr"

    def __post_init__(self) -> None:
        require_transformer(self, multiple=4 * self.heads)


def architecture(config: DetrConfig) -> dict[str, Any]:
    """Returns the fields that determine the shapes and meaning of a detector's weights, as a flat mapping.

    Two detectors with equal fields can exchange weights. Fields that concern only the training (initial backbone weights, frozen
    stages, dropout), and the cells of positions without a table, are left out.
    """
    flat = flatten(as_dict(config))
    for field in ("backbone.weights", "backbone.frozen_stages", "dropout"):
        del flat[field]
    if config.positions.kind != "learned":
        del flat["positions.cells"]
    return flat
