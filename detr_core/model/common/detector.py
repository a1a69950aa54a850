"""Defines the base class of the detectors of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from detr_core.model.common.config import KindConfig
from detr_core.structures import ImageRegions, Padding, Segment, SoftmaxOutput, Target

if TYPE_CHECKING:
    import numpy as np


class Detector(nn.Module):
    """A detector, which maps images and their padding to an output; structures.py describes the outputs.

    It is called with images [B, 3, H, W], normalised and zero on padding, and their padding.
    config: its configuration. num_classes: the number of classes C. backbone: its first module is a `Backbone`. has_mask_head:
    whether a mask head was added to it, which predicts masks of its queries; the kinds with the capability `masks` predict masks
    without one. attention_maps: the kind of attention maps that its mask head uses, 'none' without such maps. class_heads: the
    beginnings of the names of the weights that depend on the classes.
    """

    config: KindConfig
    num_classes: int
    backbone: nn.Sequential
    has_mask_head: bool = False
    attention_maps: str = "none"
    class_heads: tuple[str, ...] = ("class_embed.",)

    def layers(self) -> list[nn.Module]:
        """Returns the layers of the transformer, encoder first; a detector without a transformer has none."""
        return []

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

        name: the weight's name, which begins like one of `class_heads`. trained: the other detector's weight. rows [C]: the index
        that each class has in the other detector; None if that was trained on other classes. The result None leaves the weight
        as it is.
        """
        raise NotImplementedError

    def samples(self, images: Tensor, padding: Padding, targets: list[Target]) -> Any:
        """Returns what the losses are computed on; only kinds with losses of their own have this method."""
        raise NotImplementedError

    def instance_masks(self, regions: ImageRegions) -> Tensor:
        """Returns the masks of the detections, bool [N, H, W] on the CPU.

        Only kinds with the capability `masks` have this method.
        """
        raise NotImplementedError

    def semantic_logits(self, images: Tensor) -> Tensor:
        """Returns the `semantic` of a RegionOutput for images of any size [B, 3, H, W], normalised and zero on padding.

        Only kinds with the capability `panoptic` have this method.
        """
        raise NotImplementedError

    def panoptic_map(self, regions: ImageRegions, config: Any) -> tuple[np.ndarray, list[Segment]]:
        """Returns the panoptic map of an image, int32 [H, W], and its segments; see `detr_core.evaluate.panoptic.merge`.

        Pixels of no segment are -1. config: the field of EvaluateConfig that the row of the kind names as `merging`. Only kinds
        with the capability `panoptic` have this method.
        """
        raise NotImplementedError
