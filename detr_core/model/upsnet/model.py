"""UPSNet (arXiv 1901.03784): Mask R-CNN for things, a semantic head for all classes, and a panoptic head that combines both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detr_core.model.common.host_values import uploaded
from detr_core.model.regions.masks import MaskSamples
from detr_core.model.regions.parts import truth_of
from detr_core.model.regions.targets import NO_CLASS, class_map, things_of
from detr_core.model.regions.things_and_stuff import ThingsAndStuff
from detr_core.model.upsnet.config import UpsnetConfig, UpsnetMergingConfig
from detr_core.model.upsnet.decision import decide
from detr_core.model.upsnet.panoptic_head import label_map, panoptic_logits
from detr_core.model.upsnet.placement import placed_masks, semantic_parts
from detr_core.model.upsnet.removal import confident, not_overlapping
from detr_core.model.upsnet.semantic_head import SemanticHead
from detr_core.model.upsnet.target import drawn_instances, panoptic_target
from detr_core.structures import ImageRegions, Padding, Segment, Target

PLACE = 2  # added to an image's seed; 0 and 1 are the seeds of the sampled anchors and proposals


@dataclass
class PixelSamples:
    """What the losses of the semantic head and of the panoptic head of one image are computed on, at the finest map's stride.

    semantic_logits [C, h, w], semantic_wanted [h, w]: the channel of each pixel, NO_CLASS where it has none. boxes [T, 4]: the
    ground-truth boxes of the things, xyxy in cells of the map. panoptic_logits [S + K + 1, h, w] of K of the things,
    panoptic_wanted [h, w]: see `panoptic_target`.
    """

    semantic_logits: Tensor
    semantic_wanted: Tensor
    boxes: Tensor
    panoptic_logits: Tensor
    panoptic_wanted: Tensor


@dataclass
class UpsnetSamples:
    """What UPSNet's losses are computed on. things: the samples of Mask R-CNN. pixels: those of the other heads, per image."""

    things: MaskSamples
    pixels: list[PixelSamples]


class Upsnet(ThingsAndStuff):
    """UPSNet. The channels of the semantic head are the stuff classes, then the thing classes, each in the order of the classes.

    isthing: whether each class is a thing.
    """

    class_heads = (*ThingsAndStuff.class_heads, "semantic.classifier.")
    config: UpsnetConfig
    class_of_channel: Tensor
    channel_of_class: Tensor

    def __init__(self, config: UpsnetConfig, isthing: Sequence[bool]) -> None:
        super().__init__(config, isthing)
        class_of_channel = sorted(range(len(isthing)), key=lambda number: isthing[number])
        channel_of_class = [class_of_channel.index(number) for number in range(len(isthing))]
        self.register_buffer("class_of_channel", torch.tensor(class_of_channel), persistent=False)
        self.register_buffer("channel_of_class", torch.tensor(channel_of_class), persistent=False)
        self.semantic = SemanticHead(self.width, config.semantic_width, len(config.stages), len(isthing))

    def class_weight(self, name: str, trained: Tensor, rows: Tensor | None) -> Tensor | None:
        if not name.startswith("semantic.classifier.") or rows is None:
            return super().class_weight(name, trained, rows)
        return trained[torch.cat([self.places(rows, self.stuff), len(self.stuff) + self.places(rows, self.things)])]

    def samples(self, images: Tensor, padding: Padding, targets: list[Target]) -> UpsnetSamples:  # type: ignore[override]
        """Returns what the losses are computed on; see `FasterRcnn.samples`. The targets must be panoptic, with masks.

        The panoptic head is trained on some of the ground-truth boxes, which are drawn with the target's `sampling_seed`.
        """
        maps, sizes = self._maps(images), list(padding.sizes)
        semantic = self._semantic_logits(maps)
        things = things_of(targets, self.thing_of_class)
        drawn = [uploaded(drawn_instances(len(of.labels), (of.sampling_seed + PLACE) % 2**63), images.device) for of in things]
        boxes = [truth_of(of, size)["boxes"].to(maps[0].dtype) for of, size in zip(things, sizes, strict=True)]
        with torch.autocast(images.device.type, enabled=False):
            regions = self._mask_samples(maps, images, sizes, things)
            masks = self.mask_logits(
                maps,
                [of_image[rows] for of_image, rows in zip(boxes, drawn, strict=True)],
                [of.labels[rows] + 1 for of, rows in zip(things, drawn, strict=True)],  # torchvision's label 0 is the background
            )
            of_images = torch.split(masks, [len(rows) for rows in drawn])
            pixels = [
                self._pixel_samples(*of_image)
                for of_image in zip(semantic, targets, things, boxes, drawn, of_images, strict=True)
            ]
        return UpsnetSamples(regions, pixels)

    def _pixel_samples(
        self, semantic: Tensor, target: Target, things: Target, boxes: Tensor, drawn: Tensor, mask_logits: Tensor
    ) -> PixelSamples:
        stride = self.strides[0]
        rows, columns = (_centres(pixels, stride, semantic.device) for pixels in target.size)
        logits = semantic[:, : len(rows), : len(columns)]
        classes = class_map(target)[rows][:, columns]
        wanted = self.channel_of_class[classes].where(classes != NO_CLASS, NO_CLASS)
        assert things.masks is not None  # `class_map` has checked it
        masks = things.masks[drawn][:, rows][:, :, columns]
        channels, num_stuff = len(self.stuff) + things.labels[drawn], len(self.stuff)
        in_cells = boxes / stride
        parts = semantic_parts(logits, channels, in_cells[drawn])
        placed = placed_masks(mask_logits, in_cells[drawn], (len(rows), len(columns)))
        return PixelSamples(
            logits,
            wanted,
            in_cells,
            panoptic_logits(logits, parts, placed, num_stuff),
            panoptic_target(wanted, masks, num_stuff),
        )

    def panoptic_map(self, found: ImageRegions, config: UpsnetMergingConfig) -> tuple[np.ndarray, list[Segment]]:
        """Returns the panoptic map of an image; see `Detector.panoptic_map`."""
        semantic, num_stuff = found.semantic, len(self.stuff)
        assert semantic is not None  # a detector of this kind has written it
        found = found.chosen(confident(found.boxes, found.scores, config.score))
        channels = self.channel_of_class[found.labels]
        placed = placed_masks(found.mask_logits, found.boxes, found.size)
        kept = not_overlapping(found.scores, channels, placed, config.overlap)
        parts = semantic_parts(semantic, channels[kept], found.boxes[kept])
        labels = label_map(panoptic_logits(semantic, parts, placed[kept], num_stuff))
        classes, instances = decide(labels, semantic, channels[kept], num_stuff, config.stuff_area)
        return self._segments(classes, instances)

    def _segments(self, classes: Tensor, instances: Tensor) -> tuple[np.ndarray, list[Segment]]:
        # Returns the map with an id for each stuff class and each instance, and the segments. classes, instances: of `decide`.
        # An instance has a class of things, so that one key for each pixel says both.
        channels = len(self.class_of_channel)
        key = torch.where(classes == NO_CLASS, NO_CLASS, instances * channels + classes).cpu().numpy()
        keys, ids, areas = np.unique(key, return_inverse=True, return_counts=True)
        first = int(len(keys) > 0 and keys[0] == NO_CLASS)  # the pixels without a segment become -1
        class_of_channel = self.class_of_channel.tolist()
        segments = [
            Segment(id=i, isthing=each >= channels, category_id=class_of_channel[each % channels], area=int(area))
            for i, (each, area) in enumerate(zip(keys[first:].tolist(), areas[first:].tolist(), strict=True))
        ]
        return (ids.reshape(key.shape) - first).astype(np.int32), segments


def _centres(pixels: int, stride: int, device: torch.device) -> Tensor:
    # Returns the pixel at the centre of each cell of a map, of the cells whose centre is in the image; at least one.
    cells = sum(int((cell + 0.5) * stride) < pixels for cell in range(-(-pixels // stride)))
    return ((torch.arange(max(1, cells), device=device) + 0.5) * stride).long().clamp(max=pixels - 1)
