"""Random images, and what every detector must do with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detr_core.structures import Padding


def images(count: int = 2, height: int = 48, width: int = 60) -> tuple[Tensor, Padding]:
    """Returns random images and their padding, of which there is none."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, height, width, generator=generator), Padding.none(count, (height, width), torch.device("cpu"))


def require_same_output_alone_and_in_a_batch(model: nn.Module) -> None:
    """Asserts that each of three images has the same logits and boxes alone as in a batch."""
    pixels, padding = images(3)
    together = model(pixels, padding)
    for i in range(3):
        alone = model(pixels[i : i + 1], Padding.of(padding.mask[i : i + 1]))
        torch.testing.assert_close(alone.logits[:, 0], together.logits[:, i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.boxes[:, 0], together.boxes[:, i], rtol=1e-4, atol=1e-5)
