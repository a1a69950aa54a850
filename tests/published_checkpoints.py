"""Small detectors in the published format, whose weights follow the rule of the golden cases."""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from detr_core.model.common.config import BackboneConfig, PositionsConfig
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.model.detr.published import published_state
from tests.golden_cases import golden_weight

TINY = DetrConfig(
    BackboneConfig("resnet18", dilation=False, weights=None, norm="frozen", frozen_stages=2),
    PositionsConfig("sine", "attention", cells=50, queries="attention", factor=1),
    width=32,
    heads=8,
    feed_forward=48,
    encoder_layers=1,
    decoder_layers=2,
    queries=7,
    dropout=0.1,
    pre_norm=False,
    shared_heads=True,
)


def tiny_config(backbone: str = "resnet18", dilation: bool = False, **changes: Any) -> DetrConfig:
    return replace(TINY, backbone=replace(TINY.backbone, name=backbone, dilation=dilation), **changes)


def published_state_dict(
    config: DetrConfig = TINY, classes: int = 91, mask_head: bool = False, seed: int = 3
) -> dict[str, torch.Tensor]:
    """Returns a state dict as the reference writes it, with values by the rule of the golden cases.

    Calls share its tensors.
    """
    return dict(_weights(config, classes, mask_head, seed))


@lru_cache(maxsize=2)  # the values of a ResNet take longer to draw than most tests need them for
def _weights(config: DetrConfig, classes: int, mask_head: bool, seed: int) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        model = Detr(config, classes, mask_head)
    return {name: golden_weight(seed, name, value) for name, value in published_state(model).items()}


def reference_arguments(**changes: Any) -> argparse.Namespace:
    """Returns the namespace that the reference implementation stores beside the weights.

    If the training ran on a cluster, the output folder in it is a path.
    """
    values = {
        "lr": 1e-4,
        "dilation": False,
        "nheads": 8,
        "dropout": 0.1,
        "output_dir": pathlib.PosixPath("/runs/1"),
        "masks": None,
    }
    return argparse.Namespace(**values | changes)


def published_weights(mask_head: bool) -> dict[str, torch.Tensor]:
    state = published_state_dict(classes=250 if mask_head else 91, mask_head=mask_head)
    return {name: 12 * value if "class_embed" in name else value for name, value in state.items()}


def write_published(file: Path, mask_head: bool) -> Path:
    torch.save({"model": published_weights(mask_head), "args": reference_arguments()}, file)
    return file
