"""Defines Panoptic FPN (arXiv 1901.02446): Mask R-CNN for things, and a semantic branch on the same pyramid for stuff."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from detr_core.model.panoptic_fpn.config import PanopticFpnConfig, PanopticFpnMergingConfig
from detr_core.model.panoptic_fpn.merging import OTHER, merged
from detr_core.model.panoptic_fpn.semantic import SemanticBranch
from detr_core.model.regions.masks import MaskSamples
from detr_core.model.regions.targets import NO_CLASS, class_map, things_of
from detr_core.model.regions.things_and_stuff import ThingsAndStuff
from detr_core.structures import ImageRegions, Padding, Segment, Target


@dataclass
class PanopticFpnSamples:
    """What Panoptic FPN's losses are computed on.

    things: the samples of Mask R-CNN. semantic_logits: [1 + S, H, W] per image, where S is the number of stuff classes, at the
    size of the image. semantic_targets: [H, W] per image, the channel of each pixel, NO_CLASS where it has none.
    """

    things: MaskSamples
    semantic_logits: list[Tensor]
    semantic_targets: list[Tensor]


class PanopticFpn(ThingsAndStuff):
    """Panoptic FPN. Channel 0 of the semantic branch is 'other', all things; the next ones are the stuff classes in their order.

    isthing: whether each class is a thing.
    """

    config: PanopticFpnConfig
    channel_of_class: Tensor
    class_heads = (*ThingsAndStuff.class_heads, "semantic.predictor.")

    def __init__(self, config: PanopticFpnConfig, isthing: Sequence[bool]) -> None:
        super().__init__(config, isthing)
        stuff = [number for number, flag in enumerate(isthing) if not flag]
        channels = [OTHER if flag else 1 + stuff.index(number) for number, flag in enumerate(isthing)]
        self.register_buffer("channel_of_class", torch.tensor(channels), persistent=False)
        self.semantic = SemanticBranch(self.width, self.strides, config.semantic_width, 1 + len(stuff))

    def class_weight(self, name: str, trained: Tensor, rows: Tensor | None) -> Tensor | None:
        if not name.startswith("semantic.predictor.") or rows is None:
            return super().class_weight(name, trained, rows)
        stuff = self.places(rows, self.stuff)
        return trained[torch.cat([stuff.new_tensor([OTHER]), stuff + 1])]

    def samples(self, images: Tensor, padding: Padding, targets: list[Target]) -> PanopticFpnSamples:  # type: ignore[override]
        """Returns what the losses are computed on; see `FasterRcnn.samples`. The targets must be panoptic, with masks."""
        maps, sizes = self._maps(images), list(padding.sizes)
        logits = F.interpolate(self._semantic_logits(maps), size=images.shape[-2:], mode="bilinear", align_corners=False)
        with torch.autocast(images.device.type, enabled=False):
            things = self._mask_samples(maps, images, sizes, things_of(targets, self.thing_of_class))
        classes = [class_map(target) for target in targets]
        return PanopticFpnSamples(
            things,
            [of_image[:, :height, :width] for of_image, (height, width) in zip(logits, sizes, strict=True)],
            [self.channel_of_class[of_image].where(of_image != NO_CLASS, NO_CLASS) for of_image in classes],
        )

    def panoptic_map(self, found: ImageRegions, config: PanopticFpnMergingConfig) -> tuple[np.ndarray, list[Segment]]:
        """Returns the panoptic map of an image; see `Detector.panoptic_map`."""
        assert found.semantic is not None  # a detector of this kind has written it
        channels = found.semantic.argmax(0).cpu().numpy()
        sure = found.chosen(found.scores >= config.score)
        masks = self.instance_masks(sure).numpy()
        ids, segments = merged(channels, masks, sure.scores.tolist(), sure.labels.tolist(), config)
        stuff = self.stuff.tolist()
        described = [
            Segment(
                id=segment.id - 1,
                isthing=segment.instance is not None,
                category_id=segment.category if segment.instance is not None else stuff[segment.category - 1],
                area=segment.area,
            )
            for segment in segments
        ]
        return ids - 1, described
