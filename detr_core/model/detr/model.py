"""Defines DETR: its backbone, transformer, prediction heads and an optional mask head (sections 3.2 and 4.4 of the paper).

Parameter names are those of the published checkpoints, so that their state dicts load without conversion.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr_core.model.common.backbone import Backbone
from detr_core.model.common.detector import Detector
from detr_core.model.detr.config import AttentionMaps, DetrConfig, architecture
from detr_core.model.detr.mask_head import AttentionMap, MaskHead, QueryFeatures
from detr_core.model.transformer.box_head import BoxHead
from detr_core.model.transformer.position import build_positions
from detr_core.model.transformer.transformer import Transformer
from detr_core.structures import Padding, SoftmaxOutput


class Detr(Detector):
    """DETR. num_classes: the number of classes C; class index C is no-object.

    mask_head: whether it can predict masks. attention_maps: the kind of attention maps that the mask head uses.
    """

    config: DetrConfig
    attention_maps: AttentionMaps

    def __init__(
        self, config: DetrConfig, num_classes: int, mask_head: bool, attention_maps: AttentionMaps = "published"
    ) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        backbone = Backbone(config.backbone)
        self.backbone = nn.Sequential(backbone, build_positions(config.positions, config.width))
        self.input_proj = nn.Conv2d(backbone.channels[-1], config.width, kernel_size=1)
        self.transformer = Transformer(config)
        self.query_embed = nn.Embedding(config.queries, config.width)
        if config.shared_heads:
            self.class_embed: nn.Module = nn.Linear(config.width, num_classes + 1)
            self.bbox_embed: nn.Module = BoxHead(config.width)
        else:
            self.class_embed = nn.ModuleList(nn.Linear(config.width, num_classes + 1) for _ in range(config.decoder_layers))
            self.bbox_embed = nn.ModuleList(BoxHead(config.width) for _ in range(config.decoder_layers))
        self.has_mask_head = mask_head
        self.attention_maps = attention_maps
        if mask_head:
            stage1, stage2, stage3, _ = backbone.channels
            # This module provides the query's part of the mask head's input. It has the published name for all kinds of maps.
            self.bbox_attention: AttentionMap | QueryFeatures = (
                QueryFeatures(config.width, config.heads)
                if attention_maps == "none"
                else AttentionMap(config.width, config.heads, attention_maps)
            )
            self.mask_head = MaskHead(config.width, config.heads, [stage3, stage2, stage1])

    def forward(self, images: Tensor, padding: Padding) -> SoftmaxOutput:
        """Returns the output for images [B, 3, H, W], normalised and zero on padding."""
        maps = self.backbone[0](images)
        features = maps[-1]
        # As published, a position is padding if its nearest pixel is padding.
        size = (features.shape[-2], features.shape[-1])
        small = F.interpolate(padding.mask[:, None].float(), size=size).bool()[:, 0]
        projected = self.input_proj(features)
        positions = self.backbone[1](small).to(projected.dtype)
        outside = small if padding.covers_cells(size) else None
        decoded, memory = self.transformer(projected, outside, positions, self.query_embed.weight)
        logits, boxes = self._heads(decoded)
        pyramid = (maps[2], maps[1], maps[0]) if self.has_mask_head else ()
        return SoftmaxOutput(logits, boxes, decoded[-1], memory, projected, small, pyramid)

    def masks(self, output: SoftmaxOutput, image: Tensor, query: Tensor) -> Tensor:
        """Returns mask logits [K, h, w] of K queries over the padded image, at the stride of the backbone's first stage.

        output: the output of this detector's `forward`. image, query [K]: the image's index in the batch and the query's index.
        """
        maps = self.bbox_attention(output.queries, output.memory, output.padding, image, query)
        return cast(Tensor, self.mask_head(output.projected, maps, output.pyramid, image))

    def layers(self) -> list[nn.Module]:
        return [*self.transformer.encoder.layers, *self.transformer.decoder.layers]

    def architecture(self) -> dict[str, Any]:
        return architecture(self.config)

    def class_weight(self, name: str, trained: Tensor, rows: Tensor | None) -> Tensor | None:
        if rows is None:
            return None
        return trained[torch.cat([rows, rows.new_tensor([len(trained) - 1])])]  # no-object is last

    def _heads(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.shared_heads:
            return self.class_embed(decoded), self.bbox_embed(decoded).float().sigmoid()
        heads = zip(decoded, cast(nn.ModuleList, self.class_embed), cast(nn.ModuleList, self.bbox_embed), strict=True)
        layers = [(class_head(x), box_head(x).float().sigmoid()) for x, class_head, box_head in heads]
        return torch.stack([logits for logits, _ in layers]), torch.stack([boxes for _, boxes in layers])
