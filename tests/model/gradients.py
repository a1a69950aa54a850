"""Finds the weights of a model that a loss does not train."""

from __future__ import annotations

from torch import Tensor, nn


def weights_without_gradient(model: nn.Module, loss: Tensor) -> list[str]:
    """Returns the names of the trainable weights that get no gradient from the loss."""
    loss.backward()  # type: ignore[no-untyped-call]
    return [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
