"""Defines Deformable DETR (arXiv 2010.04159), whose encoder and decoder attend to a few points of several feature maps.

In shapes, N is the number of positions of all levels together, and K the number of coordinates of a reference: 2 for a point
(x, y), 4 for a box (cxcywh). References are normalised to 0..1 of the unpadded image, and converted to 0..1 of each padded level
by the level's share of valid cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detr_core.model.common.backbone import Backbone
from detr_core.model.common.detector import Detector
from detr_core.model.deformable.attention import DeformableAttention, Sizes
from detr_core.model.deformable.config import DeformableConfig, architecture
from detr_core.model.deformable.two_stage import ProposalStage, anchor_boxes
from detr_core.model.transformer.box_head import BoxHead
from detr_core.model.transformer.position import SinePositions
from detr_core.model.transformer.transformer import Attention, Layer
from detr_core.structures import Padding, SigmoidOutput

PRIOR = 0.01  # initial probability of every class, so that the many empty slots don't dominate the first steps
GROUPS = 32  # number of groups of the projections' GroupNorm, as published


class DeformableDetr(Detector):
    """Deformable DETR. num_classes: the number of classes C; each class has its own sigmoid.

    class_embed, bbox_embed: the heads, one for all decoder layers, or one for each if they refine boxes. A two-stage detector has
    one more, the last, for the encoder's proposals. It has no learned queries.
    """

    config: DeformableConfig

    def __init__(self, config: DeformableConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        backbone = Backbone(config.backbone)
        self.backbone = nn.Sequential(backbone)
        self.positions = SinePositions(config.width // 2, before_end=0.5 if config.encoded_point == "center" else 0.0)
        channels = [backbone.channels[stage - 1] for stage in config.stages]
        self.input_proj = nn.ModuleList(_projection(inputs, config.width, 1, 1) for inputs in channels)
        for extra in range(config.levels - len(channels)):
            self.input_proj.append(_projection(config.width if extra else channels[-1], config.width, 3, 2))
        # Only the encoder uses these embeddings, so without an encoder they would never be trained.
        self.level_embed = nn.Parameter(torch.empty(config.levels, config.width), requires_grad=config.encoder_layers > 0)
        if not config.two_stage:
            self.query_embed = nn.Embedding(config.queries, 2 * config.width)  # position and content of each query
        self.encoder = nn.ModuleList(DeformableEncoderLayer(config) for _ in range(config.encoder_layers))
        self.encoder_norm = nn.LayerNorm(config.width) if config.pre_norm else nn.Identity()
        self.decoder = nn.ModuleList(DeformableDecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(config.width) if config.pre_norm else nn.Identity()
        if config.two_stage:
            self.proposals = ProposalStage(config.width)
        else:
            self.reference_points = nn.Linear(config.width, 2)
        heads = (config.decoder_layers if config.refine else 1) + config.two_stage
        self.class_embed = nn.ModuleList(nn.Linear(config.width, num_classes) for _ in range(heads))
        self.bbox_embed = nn.ModuleList(BoxHead(config.width) for _ in range(heads))
        self._reset()

    def _reset(self) -> None:
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset()
        nn.init.normal_(self.level_embed)
        if not self.config.two_stage:
            nn.init.xavier_uniform_(self.reference_points.weight)
            nn.init.zeros_(self.reference_points.bias)
        for index, (classes, boxes) in enumerate(zip(self.class_embed, self.bbox_embed, strict=True)):
            nn.init.constant_(cast(Tensor, classes.bias), -math.log((1 - PRIOR) / PRIOR))
            last = cast(BoxHead, boxes).layers[-1]
            nn.init.zeros_(cast(Tensor, last.weight))
            nn.init.zeros_(cast(Tensor, last.bias))
            # Initial boxes are an eighth of the image. Later heads, and all those of two stages, predict corrections.
            if index == 0 and not self.config.two_stage:
                nn.init.constant_(cast(Tensor, last.bias)[2:], -2.0)

    def forward(self, images: Tensor, padding: Padding) -> SigmoidOutput:
        """Returns the output for images [B, 3, H, W], normalised and zero on padding."""
        levels = self._levels(images, padding)
        memory = levels.tokens
        references = levels.centers[:, :, None] * levels.valid[:, None]
        for layer in self.encoder:
            memory = layer(memory, levels.positions, references, levels)
        memory = self.encoder_norm(memory)

        proposals = None
        if self.config.two_stage:
            anchors, usable = anchor_boxes(levels.sizes, levels.valid, levels.padding)
            proposals = self.proposals.predict(memory, anchors, usable, self.class_embed[-1], self.bbox_embed[-1])
            x, position, reference = self.proposals.best(proposals, self.config.queries)
        else:
            position, x = (part.expand(len(images), -1, -1) for part in self.query_embed.weight.chunk(2, dim=1))
            reference = self.reference_points(position).float().sigmoid()
        logits, boxes = [], []
        for depth, layer in enumerate(self.decoder):
            x = layer(x, position, _on_levels(reference, levels.valid), memory, levels)
            hidden = self.decoder_norm(x)
            head = depth if self.config.refine else 0
            logits.append(self.class_embed[head](hidden))
            offset = self.bbox_embed[head](hidden).float()
            boxes.append((offset + F.pad(reference.logit(1e-5), (0, 4 - reference.shape[-1]))).sigmoid())
            if self.config.refine:
                reference = boxes[-1].detach()
        return SigmoidOutput(torch.stack(logits), torch.stack(boxes), proposals)

    def layers(self) -> list[nn.Module]:
        return [*self.encoder, *self.decoder]

    def architecture(self) -> dict[str, Any]:
        return architecture(self.config)

    def class_weight(self, name: str, trained: Tensor, rows: Tensor | None) -> Tensor | None:
        if self.config.two_stage and name.startswith(f"class_embed.{len(self.class_embed) - 1}."):
            # The encoder's head learns in its first row whether there is an object. Nothing is ever labelled as another class.
            weight = self.get_parameter(name).detach().clone()
            count = min(len(weight), len(trained))
            weight[:count] = trained[:count]
            return weight
        return None if rows is None else trained[rows]

    def _levels(self, images: Tensor, padding: Padding) -> Levels:
        maps = self.backbone[0](images)
        maps = [maps[stage - 1] for stage in self.config.stages]
        projected: list[Tensor] = []
        for level, projection in enumerate(self.input_proj):
            source = maps[level] if level < len(maps) else (maps[-1] if level == len(maps) else projected[-1])
            projected.append(projection(source))
        sizes = [(x.shape[-2], x.shape[-1]) for x in projected]
        masks = [F.interpolate(padding.mask[:, None].float(), size=size).bool()[:, 0] for size in sizes]
        positions = [self.positions(mask) + self.level_embed[level, :, None, None] for level, mask in enumerate(masks)]
        valid = torch.stack([_valid_share(mask) for mask in masks], 1)
        centers = [_centers(size, images.device) / valid[:, level, None] for level, size in enumerate(sizes)]
        outside = torch.cat([mask.flatten(1) for mask in masks], 1) if padding.exists else None
        tokens, encodings = (torch.cat([x.flatten(2).transpose(1, 2) for x in parts], 1) for parts in (projected, positions))
        return Levels(tokens, encodings.to(tokens.dtype), sizes, outside, valid, torch.cat(centers, 1))


@dataclass
class Levels:
    """The feature maps as input of the transformer.

    tokens, positions [B, N, D]. sizes: (h, w) of each level. padding [B, N]: True on padding, None without padding.
    valid [B, levels, 2]: the share of each level's width and height that is not padding. centers [B, N, 2]: the centre (x, y) of
    each position, normalised to 0..1 of the unpadded image (above 1 on padding).
    """

    tokens: Tensor
    positions: Tensor
    sizes: Sizes
    padding: Tensor | None
    valid: Tensor
    centers: Tensor


class DeformableEncoderLayer(Layer):
    """An encoder layer, in which every position of every level attends to points around itself on all levels."""

    def __init__(self, config: DeformableConfig) -> None:
        super().__init__(config, _deformable(config))
        if not self.has_feed_forward:
            del self.norm2

    def forward(self, x: Tensor, position: Tensor, references: Tensor, levels: Levels) -> Tensor:
        """Returns [B, N, D] for x, position [B, N, D] and references [B, N, levels, 2], in 0..1 of the padded levels."""

        def attend(y: Tensor) -> Tensor:
            return cast(Tensor, self.self_attn(y + position, references, y, levels.sizes, levels.padding))

        x = self.residual(x, self.norm1, attend)
        return self.residual(x, self.norm2, self.feed_forward) if self.has_feed_forward else x


class DeformableDecoderLayer(Layer):
    """A decoder layer, in which queries attend to each other, then to points around their references on all levels."""

    def __init__(self, config: DeformableConfig) -> None:
        super().__init__(config, Attention(config.width, config.heads, config.dropout))
        self.cross_attn = _deformable(config)
        if self.has_feed_forward:
            self.norm3 = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, position: Tensor, references: Tensor, memory: Tensor, levels: Levels) -> Tensor:
        """Returns [B, Q, D] for x, position [B, Q, D], references [B, Q, levels, K], in 0..1 of the padded levels, and memory.

        memory [B, N, D]: the output of the encoder.
        """

        def attend_to_queries(y: Tensor) -> Tensor:
            with_position = y + position
            return cast(Tensor, self.self_attn(with_position, with_position, y, None))

        def attend_to_memory(y: Tensor) -> Tensor:
            return cast(Tensor, self.cross_attn(y + position, references, memory, levels.sizes, levels.padding))

        x = self.residual(x, self.norm1, attend_to_queries)
        x = self.residual(x, self.norm2, attend_to_memory)
        return self.residual(x, self.norm3, self.feed_forward) if self.has_feed_forward else x


def _deformable(config: DeformableConfig) -> DeformableAttention:
    return DeformableAttention(config.width, config.heads, config.levels, config.points)


def _projection(channels: int, width: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2)
    nn.init.xavier_uniform_(convolution.weight)
    nn.init.zeros_(cast(Tensor, convolution.bias))
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, width))


def _valid_share(padding: Tensor) -> Tensor:
    # Returns the valid share of the width and of the height, [B, 2], for padding [B, h, w], which is at the right and bottom.
    return torch.stack([(~padding[:, 0]).float().mean(1), (~padding[:, :, 0]).float().mean(1)], -1)


def _centers(size: tuple[int, int], device: torch.device) -> Tensor:
    # Returns the centres (x, y) of a level's cells, row by row, in 0..1 of the padded level, [h w, 2].
    height, width = size
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)


def _on_levels(reference: Tensor, valid: Tensor) -> Tensor:
    # Converts references of the unpadded image, [B, Q, K], to those of each padded level, [B, Q, levels, K].
    return reference[:, :, None] * valid.repeat(1, 1, reference.shape[-1] // 2)[:, None]
