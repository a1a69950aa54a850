"""Builds the optimiser and the learning rate schedule (section A.4 of the paper)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from detr_core.train.config import OptimizerConfig, ScheduleConfig, SgdConfig

SAMPLING = ("sampling_offsets.", "reference_points.")  # parts of the names of parameters that determine sampling points


def build_optimizer(model: nn.Module, config: OptimizerConfig | SgdConfig) -> torch.optim.Optimizer:
    """Returns the optimiser of the trainable parameters.

    The backbone has its own learning rate, and so have the parameters of sampling points if `sampling_lr` is given. Weight decay
    applies to all parameters.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    sampling_lr = config.sampling_lr if isinstance(config, OptimizerConfig) else None
    groups: dict[str, dict[str, Any]] = {"rest": {"params": [], "lr": config.lr}}
    for name, parameter in trainable:
        if "backbone.0." in name:
            group = groups.setdefault("backbone", {"params": [], "lr": config.backbone_lr})
        elif sampling_lr is not None and any(part in name for part in SAMPLING):
            group = groups.setdefault("sampling", {"params": [], "lr": sampling_lr})
        else:
            group = groups["rest"]
        group["params"].append(parameter)
    for group in groups.values():
        group["base_lr"] = group["lr"]
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(groups.values(), momentum=config.momentum, weight_decay=config.weight_decay, fused=True)
    return torch.optim.AdamW(groups.values(), weight_decay=config.weight_decay, fused=True)


def learning_rate_factor(step: int, steps_per_epoch: int, total_steps: int, config: ScheduleConfig) -> float:
    """Returns the factor of the learning rates at the optimiser step `step`, which is counted from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.drop_epoch is not None:
        return 0.1 if step >= config.drop_epoch * steps_per_epoch else 1.0
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * progress))
