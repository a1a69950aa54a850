"""Defines Mask R-CNN: Faster R-CNN with torchvision's mask head.

In shapes, M is the number of masks: in training, of the positive proposals over all images of a batch whose object has a mask.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image, project_masks_on_boxes

from detr_core.model.common.backbone import norm_layer
from detr_core.model.common.host_values import marked_rows
from detr_core.model.regions.config import MaskRegionConfig
from detr_core.model.regions.detector import FasterRcnn, Samples
from detr_core.model.regions.parts import Pooling, image_indices
from detr_core.structures import ImageRegions, Padding, RegionOutput, Target

CELLS = 14  # height and width of the features from which the mask of a box is predicted; the mask has twice as many
LAYERS = 4  # convolutions of the mask head
PASTED_PIXELS = 2**22  # pixels of masks that are pasted at once; the limit bounds the memory and changes no result


@dataclass
class MaskSamples:
    """The samples of Faster R-CNN's losses, and the masks of the positive proposals with their targets.

    mask_image [M]: the index of the image in the batch. mask_logits [M, 28, 28]: logits in the proposal's box, for the class of
    its object. mask_targets [M, 28, 28]: the part of the object's mask inside the box, 0..1.
    """

    regions: Samples
    mask_image: Tensor
    mask_logits: Tensor
    mask_targets: Tensor


class MaskRcnn(FasterRcnn):
    """Mask R-CNN. num_classes: the number of classes C without background."""

    config: MaskRegionConfig

    def __init__(self, config: MaskRegionConfig, num_classes: int) -> None:
        super().__init__(config, num_classes)
        width = config.mask_width
        self.roi_heads.mask_roi_pool = Pooling(self.strides, CELLS)
        norm = norm_layer(config.backbone) if config.version == 2 else None
        self.roi_heads.mask_head = MaskRCNNHeads(self.width, (width,) * LAYERS, dilation=1, norm_layer=norm)
        self.roi_heads.mask_predictor = MaskRCNNPredictor(width, width, num_classes + 1)

    def forward(self, images: Tensor, padding: Padding) -> RegionOutput:
        """Returns the detections with their masks; see `FasterRcnn.forward`."""
        maps = self._maps(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._detected(maps, images, padding)

    def samples(self, images: Tensor, padding: Padding, targets: list[Target]) -> MaskSamples:  # type: ignore[override]
        """Returns what the losses are computed on; see `FasterRcnn.samples`. The targets must have masks."""
        maps = self._maps(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._mask_samples(maps, images, list(padding.sizes), targets)

    def instance_masks(self, found: ImageRegions) -> Tensor:
        """Returns the masks of the detections in the image, bool [N, H, W] on the CPU.

        A pixel belongs to a mask above the probability 0.5. The masks are pasted by torchvision, some at a time: all of them as
        probabilities would need four times the memory of the result.
        """
        height, width = found.size
        at_once = max(1, PASTED_PIXELS // (height * width))
        masks = torch.zeros(len(found.boxes), height, width, dtype=torch.bool)
        for start in range(0, len(masks), at_once):
            some = slice(start, start + at_once)
            masks[some] = (pasted(found.mask_logits[some], found.boxes[some], found.size) > 0.5).cpu()
        return masks

    def _detected(self, maps: list[Tensor], images: Tensor, padding: Padding) -> RegionOutput:
        sizes = list(padding.sizes)
        boxes, scores, labels = self._detections(maps, images, sizes)
        logits = self.mask_logits(maps, boxes, labels)
        masks = torch.split(logits, [len(boxes_of_image) for boxes_of_image in boxes])
        return replace(self._output(boxes, scores, labels, sizes), mask_logits=list(masks))

    def mask_logits(self, maps: list[Tensor], boxes: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Returns the logits of the masks [M, 28, 28] inside the boxes of all images, for the given classes.

        maps: the pyramid. boxes [M_i, 4]: xyxy in pixels, per image. labels [M_i]: torchvision's labels, per image.
        """
        heads = self.roi_heads
        pooled = heads.mask_roi_pool(maps[: len(self.config.stages)], boxes)
        logits: Tensor = heads.mask_predictor(heads.mask_head(pooled))
        return logits[torch.arange(len(logits), device=logits.device), torch.cat(labels)]

    def _mask_samples(
        self, maps: list[Tensor], images: Tensor, sizes: list[tuple[int, int]], targets: list[Target]
    ) -> MaskSamples:
        samples, positives = self._samples(maps, images, sizes, targets)
        with_mask = marked_rows(*(_has_mask(target)[matched] for target, matched in zip(targets, positives.targets, strict=True)))
        boxes, labels, matched = (
            [part[rows] for part, rows in zip(parts, with_mask, strict=True)]
            for parts in (positives.boxes, positives.labels, positives.targets)
        )
        wanted = [
            project_masks_on_boxes(target.masks, boxes_of_image, chosen, 2 * CELLS)
            for target, boxes_of_image, chosen in zip(targets, boxes, matched, strict=True)
        ]
        image = image_indices([len(boxes_of_image) for boxes_of_image in boxes], images.device)
        return MaskSamples(samples, image, self.mask_logits(maps, boxes, labels), torch.cat(wanted))


def pasted(mask_logits: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns the probabilities of masks in an image, float32 [N, *size], which are 0 outside of the boxes.

    mask_logits [N, 28, 28]: logits inside the boxes. boxes [N, 4]: xyxy in pixels. size: (h, w) of the image.
    """
    masks: Tensor = paste_masks_in_image(mask_logits.float().sigmoid()[:, None], boxes.float(), size)
    return masks[:, 0]


def _has_mask(target: Target) -> Tensor:
    assert target.masks is not None, "expected targets with masks, found a dataset that was created without masks"
    return target.masks.flatten(1).any(1)
