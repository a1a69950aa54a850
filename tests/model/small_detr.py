"""A small DETR without dropout, for tests of models and trainings."""

from __future__ import annotations

import torch

from detr_core.model.common.config import BackboneConfig, PositionsConfig
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr

SMALL = DetrConfig(
    backbone=BackboneConfig("small", dilation=False, weights=None, norm="group", frozen_stages=0),
    positions=PositionsConfig("sine", "attention", cells=4, queries="attention", factor=1),
    width=32,
    heads=4,
    feed_forward=48,
    encoder_layers=1,
    decoder_layers=2,
    queries=5,
    dropout=0.0,
    pre_norm=False,
    shared_heads=True,
)


def detector(config: DetrConfig = SMALL, mask_head: bool = False) -> Detr:
    torch.manual_seed(0)
    return Detr(config, num_classes=3, mask_head=mask_head).eval()
