"""Keeps an exponential moving average of the weights during a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WARM_UP = 10  # in step t the decay is at most (1 + t) / (10 + t), so that the first weights, which are random, are forgotten soon


class WeightAverage(nn.Module):
    """An exponential moving average of the trainable weights of a model: average = decay * average + (1 - decay) * weight.

    Its values are buffers. A training module that has it as a submodule saves and loads them with its own state.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._weights: list[Tensor] = [weight for weight in model.parameters() if weight.requires_grad]
        for index, weight in enumerate(self._weights):
            self.register_buffer(str(index), weight.detach().clone())

    @torch.no_grad()
    def update(self, step: int, skipped: Tensor) -> None:
        """Includes the weights after a step. step: its number, counted from 1. skipped: 1.0 if it changed no weight, else 0.0.

        `skipped` is on the device of the weights, and the host need not know its value.
        """
        decay = min(self.decay, (1 + step) / (WARM_UP + step))
        averages = list(self.buffers())
        differences = torch._foreach_sub(self._weights, averages)
        torch._foreach_mul_(differences, (1 - skipped) * (1 - decay))
        torch._foreach_add_(averages, differences)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """During this block the model's weights are the averages."""
        trained = [weight.detach().clone() for weight in self._weights]
        self._set(list(self.buffers()))
        try:
            yield
        finally:
            self._set(trained)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)
