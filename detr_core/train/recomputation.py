"""Lets the backward pass compute activations again instead of keeping them in memory (activation checkpointing)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detr_core.model.common.backbone import Backbone
from detr_core.model.common.detector import Detector


def recompute_activations(model: Detector) -> None:
    """Makes the blocks of the backbone and the layers of the transformer keep only their inputs for the backward pass.

    The backward pass computes a block again before it needs the activations inside. Dropout draws the same random numbers in both
    passes, so gradients are the same bit for bit. A step takes about a third more computation. A block without gradient is
    executed as before.
    """
    backbone = model.backbone[0]
    assert isinstance(backbone, Backbone)
    for block in [*backbone.blocks(), *model.layers()]:
        block.forward = partial(_recomputed, block.forward, block)


def _recomputed(forward: Callable[..., Tensor], block: nn.Module, *inputs: Any) -> Tensor:
    learns = any(weight.requires_grad for weight in block.parameters())
    gradient = learns or any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
    if not torch.is_grad_enabled() or not gradient:
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
