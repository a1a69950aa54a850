"""The optimiser and the learning rate over time (section A.4)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from detr_core.train.config import OptimizerConfig, ScheduleConfig, SgdConfig

SAMPLING = ("sampling_offsets.", "reference_points.")  # in the names of what places a deformable detector's sampling points


def build_optimizer(model: nn.Module, config: OptimizerConfig | SgdConfig) -> torch.optim.Optimizer:
    """Over the trainable parameters. The backbone has a learning rate of its own, and so has what places sampling points, where
    the configuration gives it one; weight decay is on everything."""
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
    """What the learning rates are multiplied by at optimiser step `step` (0-based)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.drop_epoch is not None:
        return 0.1 if step >= config.drop_epoch * steps_per_epoch else 1.0
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * progress))
