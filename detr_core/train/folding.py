"""Folds frozen batch norm into the convolutions before it. Weights keep their names and values; only the execution changes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn

from detr_core.model.common.backbone import FrozenBatchNorm


def fold_norms(model: nn.Module) -> int:
    """Makes each convolution of `model` that a frozen batch norm follows apply this norm, too. Returns the number of such norms.

    A norm is a factor and a summand for each channel. The factor is multiplied into the convolution's weight in every forward
    pass, so that the weight gets its gradient, and the summand becomes the convolution's bias. The network then reads and writes
    each feature map once instead of three times. Results differ by rounding. The state dict stays as it is, and values that are
    loaded later count.
    """
    pairs = list(_pairs(model))
    for convolution, norm in pairs:
        convolution.forward = partial(_folded, convolution, norm)  # type: ignore[method-assign]
        norm.forward = _unchanged  # type: ignore[method-assign]
    return len(pairs)


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Conv2d, FrozenBatchNorm]]:
    """Yields each convolution without bias with the norm that follows it."""
    for module in model.modules():
        before: nn.Module | None = None
        for name, child in module.named_children():
            if isinstance(child, FrozenBatchNorm):
                # The blocks of a ResNet list their modules in any order; bn1 follows conv1.
                convolution = getattr(module, name.replace("bn", "conv")) if name.startswith("bn") else before
                if isinstance(convolution, nn.Conv2d) and convolution.bias is None:
                    yield convolution, child
            before = child


def _folded(convolution: nn.Conv2d, norm: FrozenBatchNorm, x: Tensor) -> Tensor:
    scale, shift = norm.scale_and_shift()
    folded: Tensor = convolution._conv_forward(x, convolution.weight * scale[:, None, None, None], shift)
    return folded


def _unchanged(x: Tensor) -> Tensor:
    return x
