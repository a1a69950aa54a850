"""Defines the base class of the detectors of every kind."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from detr_core.model.common.config import KindConfig
from detr_core.structures import SoftmaxOutput, Target


class Detector(nn.Module):
    """A detector, which maps images and their padding to an output; structures.py describes the outputs.

    It is called with images [B, 3, H, W], normalised and zero on padding, and padding [B, H, W], True on padding.
    config: its configuration. num_classes: the number of classes C. backbone: its first module is a `Backbone`. has_mask_head:
    whether it can predict masks. attention_maps: the kind of attention maps that its mask head uses, 'none' without such maps.
    """

    config: KindConfig
    num_classes: int
    backbone: nn.Sequential
    has_mask_head: bool = False
    attention_maps: str = "none"

    def masks(self, output: SoftmaxOutput, image: Tensor, query: Tensor) -> Tensor:
        """Returns the mask logits of some queries; only detectors with a mask head have this method. See `Detr.masks`."""
        raise NotImplementedError

    def samples(self, images: Tensor, padding: Tensor, targets: list[Target]) -> Any:
        """Returns what the losses are computed on; only kinds with losses of their own have this method."""
        raise NotImplementedError
