"""The optimiser and the learning rate over time (section A.4)."""

from __future__ import annotations

import math

import torch
from torch import nn

from detr_core.train.config import OptimizerConfig, ScheduleConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; the backbone has a learning rate of its own, weight decay is on everything."""
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    backbone = [parameter for name, parameter in trainable if "backbone.0." in name]
    rest = [parameter for name, parameter in trainable if "backbone.0." not in name]
    groups = [{"params": rest, "lr": config.lr}]
    if backbone:
        groups.append({"params": backbone, "lr": config.backbone_lr})
    for group in groups:
        group["base_lr"] = group["lr"]
    return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)


def learning_rate_factor(step: int, steps_per_epoch: int, total_steps: int, config: ScheduleConfig) -> float:
    """What the learning rates are multiplied by at optimiser step `step` (0-based)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.drop_epoch is not None:
        return 0.1 if step >= config.drop_epoch * steps_per_epoch else 1.0
    progress = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * progress))
