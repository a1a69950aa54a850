"""Small detectors of kind `deformable` in the format that its authors publish."""

from __future__ import annotations

from dataclasses import replace

import torch

from detr_core.model.common.config import BackboneConfig
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.deformable.model import DeformableDetr
from detr_core.model.deformable.published import published_state

TINY = DeformableConfig(
    BackboneConfig("resnet18", dilation=False, weights=None, norm="frozen", frozen_stages=2),
    stages=(2, 3, 4),
    levels=4,
    points=4,
    width=64,
    heads=8,
    feed_forward=48,
    encoder_layers=1,
    decoder_layers=2,
    queries=7,
    dropout=0.1,
    pre_norm=False,
    refine=False,
    encoded_point="center",
)
TWO_STAGE = replace(TINY, refine=True, two_stage=True)
DC5 = replace(TINY, backbone=replace(TINY.backbone, name="resnet50", dilation=True), stages=(4,), levels=1)


def published_state_dict(config: DeformableConfig = TINY, classes: int = 91) -> dict[str, torch.Tensor]:
    """Returns the state dict of a new detector as the authors' code writes it."""
    torch.manual_seed(3)
    return published_state(DeformableDetr(config, classes))
