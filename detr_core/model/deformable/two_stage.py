"""The first stage of a two-stage Deformable DETR (arXiv 2010.04159, section 4.2 and appendix A.4).

The encoder predicts a box at every position of its feature maps, and the best of them become the queries of the decoder. In
shapes, N is the number of positions of all levels together.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from detr_core.model.common.host_values import on_device
from detr_core.model.deformable.attention import Sizes
from detr_core.model.transformer.position import sine_features
from detr_core.structures import Proposals

BORDER = 0.01  # a position is usable if every coordinate of its anchor is at least this far from 0 and from 1
SIDE = 0.05  # the side of an anchor at the first level, relative to the image; it doubles from level to level


class ProposalStage(nn.Module):
    """Makes the decoder's queries from the encoder's output. Its class head and its box head belong to the detector.

    memory, memory_norm: applied to the encoder's output before the heads. queries, queries_norm: make a query's position and
    content from its box.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.memory = nn.Linear(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.queries = nn.Linear(2 * width, 2 * width)
        self.queries_norm = nn.LayerNorm(2 * width)
        for linear in (self.memory, self.queries):
            nn.init.xavier_uniform_(linear.weight)

    def predict(self, memory: Tensor, anchors: Tensor, usable: Tensor, class_head: nn.Module, box_head: nn.Module) -> Proposals:
        """Returns the proposals for the encoder's output [B, N, D] and the results of `anchor_boxes`.

        A position that is not usable has a box of ones, and a logit that does not depend on the image.
        """
        memory = self.memory_norm(self.memory(memory.masked_fill(~usable[..., None], 0.0)))
        start = anchors.logit().masked_fill(~usable[..., None], math.inf)
        return Proposals(class_head(memory), (box_head(memory).float() + start).sigmoid())

    def best(self, proposals: Proposals, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the content and the position [B, Q, D] of each query, and its box [B, Q, 4], without the boxes' gradient.

        The Q boxes are those with the highest logits of class 0, in descending order. Q is `count`, or N if that is smaller.
        """
        scores = proposals.logits[..., 0]
        taken = scores.topk(min(count, scores.shape[1])).indices
        boxes = proposals.boxes.detach().gather(1, taken[..., None].expand(-1, -1, 4))
        features = sine_features(boxes * (2 * math.pi), self.width // 2).flatten(2)
        position, content = self.queries_norm(self.queries(features)).chunk(2, dim=-1)
        return cast(Tensor, content), cast(Tensor, position), boxes


def anchor_boxes(sizes: Sizes, valid: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns the anchor of every position, [B, N, 4] (cxcywh, normalised to 0..1 of the unpadded image), and which are usable.

    sizes, valid, padding: as in `Levels`. An anchor is a square box at the centre of the position's cell. The second result
    [B, N] is False for padding and for anchors that reach the border.
    """
    levels = []
    for level, (height, width) in enumerate(sizes):
        cells = (valid[:, level] * on_device([width, height], valid.device)).round()  # columns and rows without padding, [B, 2]
        y = torch.arange(height, device=valid.device) + 0.5
        x = torch.arange(width, device=valid.device) + 0.5
        points = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)
        centers = points / cells[:, None]
        levels.append(torch.cat([centers, torch.full_like(centers, SIDE * 2**level)], -1))
    anchors = torch.cat(levels, 1)
    usable = ((anchors > BORDER) & (anchors < 1 - BORDER)).all(-1)
    return anchors, usable if padding is None else usable & ~padding
