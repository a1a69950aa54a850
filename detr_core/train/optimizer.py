"""Builds the optimizer and the learning rate schedule (section A.4 of the paper)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, SequentialLR

from detr_core.train.config import OptimizerConfig, ScheduleConfig, SgdConfig

SAMPLING = ("sampling_offsets.", "reference_points.")  # parts of the names of parameters that determine sampling points


def build_optimizer(model: nn.Module, config: OptimizerConfig | SgdConfig) -> torch.optim.Optimizer:
    """Returns the optimizer of the trainable parameters.

    The backbone has its own learning rate, and so have the parameters of sampling points if `sampling_lr` is given. Weight decay
    applies to all parameters.
    """
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    sampling_lr = config.sampling_lr if isinstance(config, OptimizerConfig) else None
    groups: dict[str, dict[str, Any]] = {"rest": {"params": [], "lr": config.lr}}
    for name, parameter in trainable:
        if "backbone.0." in name:
            parameters = groups.setdefault("backbone", {"params": [], "lr": config.backbone_lr})
        elif sampling_lr is not None and any(part in name for part in SAMPLING):
            parameters = groups.setdefault("sampling", {"params": [], "lr": sampling_lr})
        else:
            parameters = groups["rest"]
        parameters["params"].append(parameter)
    if isinstance(config, SgdConfig):
        return torch.optim.SGD(groups.values(), momentum=config.momentum, weight_decay=config.weight_decay, fused=True)
    return torch.optim.AdamW(groups.values(), weight_decay=config.weight_decay, fused=True)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Loads a state that `optimizer.state_dict` returned, also that of a training on another type of device.

    A fused optimizer reads a weight and its moments in the order of their memory, so they must have the same memory layout, and
    weights of a backbone have another layout on a GPU than on a CPU.
    """
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def build_schedule(
    optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps_per_epoch: int, total_steps: int
) -> LRScheduler:
    """Returns the schedule, which sets the learning rates of the first step now, and those of the next step at each `step()`.

    The epochs of `drop_epochs` count from the first step of the training, also with a warm-up.
    """
    warmup = config.warmup_steps
    main: LRScheduler
    if config.kind == "step":
        # The schedule after a warm-up counts from the warm-up's end. A drop during the warm-up takes effect at its end.
        main = MultiStepLR(optimizer, [epoch * steps_per_epoch - warmup for epoch in config.drop_epochs])
    else:
        main = CosineAnnealingLR(optimizer, max(total_steps - warmup, 1))
    if warmup == 0:
        return main
    first = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    return SequentialLR(optimizer, [first, main], [warmup])
