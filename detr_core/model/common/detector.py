"""The base class of the detectors of every kind."""

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

    def architecture(self) -> dict[str, Any]:
        """Returns the fields of the configuration that determine the shapes and meaning of the weights, as a flat mapping.

        Two detectors with equal fields can exchange weights. Only kinds with the capability `init` have this method and the next.
        """
        raise NotImplementedError

    def class_weight(self, name: str, trained: Tensor, rows: Tensor | None) -> Tensor | None:
        """Returns the first value of a weight of the class head in a training that starts from another detector's weights.

        name: the weight's name, which begins with `class_embed.`. trained: the other detector's weight. rows [C]: the index that
        each class has in the other detector; None if that was trained on other classes. The result None leaves the weight as it
        is.
        """
        raise NotImplementedError

    def samples(self, images: Tensor, padding: Tensor, targets: list[Target]) -> Any:
        """Returns what the losses are computed on; only kinds with losses of their own have this method."""
        raise NotImplementedError
