"""The part that the detectors of things and stuff share: Mask R-CNN on the things, with classes of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from detr_core.model.mask_rcnn.config import MaskRegionConfig
from detr_core.model.mask_rcnn.model import MaskRcnn
from detr_core.structures import RegionOutput


class ThingsAndStuff(MaskRcnn):
    """Mask R-CNN on the thing classes of a dataset; a subclass adds the segmentation of the stuff.

    isthing: whether each class is a thing; both things and stuff are needed. The heads of Mask R-CNN have the thing classes
    alone, in the order of the classes, and the output has the class indices of the dataset. things, stuff: the class indices of
    each sort. thing_of_class [C]: the position of each class among the things, -1 for stuff.
    """

    things: Tensor
    stuff: Tensor
    thing_of_class: Tensor

    def __init__(self, config: MaskRegionConfig, isthing: Sequence[bool]) -> None:
        super().__init__(config, sum(isthing))
        self.num_classes = len(isthing)
        flags = torch.tensor(list(isthing))
        self.register_buffer("things", flags.nonzero()[:, 0], persistent=False)
        self.register_buffer("stuff", (~flags).nonzero()[:, 0], persistent=False)
        self.register_buffer("thing_of_class", (flags.cumsum(0) - 1).where(flags, -1), persistent=False)

    def _detected(self, maps: list[Tensor], images: Tensor, padding: Tensor) -> RegionOutput:
        output = super()._detected(maps, images, padding)
        return replace(output, labels=[self.things[label] for label in output.labels])
