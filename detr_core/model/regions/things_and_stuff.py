"""Defines what the region detectors of things and stuff share: Mask R-CNN on the things, and a semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from detr_core.model.regions.config import MaskRegionConfig
from detr_core.model.regions.masks import MaskRcnn
from detr_core.structures import Padding, RegionOutput


class ThingsAndStuff(MaskRcnn):
    """Mask R-CNN on the thing classes of a dataset; a subclass adds the module `semantic`, which segments the images.

    isthing: whether each class is a thing; both things and stuff are needed. The heads of Mask R-CNN have the thing classes
    alone, in the order of the classes, and the output has the class indices of the dataset. things, stuff: the class indices
    of the things and of the stuff. thing_of_class [C]: the position of each class among the things, -1 for stuff.
    """

    things: Tensor
    stuff: Tensor
    thing_of_class: Tensor
    semantic: nn.Module

    def __init__(self, config: MaskRegionConfig, isthing: Sequence[bool]) -> None:
        super().__init__(config, sum(isthing))
        self.num_classes = len(isthing)
        things, stuff = ([number for number, flag in enumerate(isthing) if flag == sort] for sort in (True, False))
        thing_of_class = [things.index(number) if flag else -1 for number, flag in enumerate(isthing)]
        for name, numbers in (("things", things), ("stuff", stuff), ("thing_of_class", thing_of_class)):
            self.register_buffer(name, torch.tensor(numbers), persistent=False)

    def forward(self, images: Tensor, padding: Padding) -> RegionOutput:
        """Returns the detections with their masks, and the semantic logits; see `FasterRcnn.forward`."""
        maps = self._maps(images)
        semantic = self._semantic_logits(maps)
        with torch.autocast(images.device.type, enabled=False):
            return replace(self._detected(maps, images, padding), semantic=semantic)

    def semantic_logits(self, images: Tensor) -> Tensor:
        """Returns the semantic logits alone; see `Detector.semantic_logits`."""
        return self._semantic_logits(self._maps(images))

    def class_weight(self, name: str, trained: Tensor, rows: Tensor | None) -> Tensor | None:
        return super().class_weight(name, trained, None if rows is None else self.places(rows, self.things))

    def places(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Returns, for each of these classes, its position among the other detector's things (or stuff).

        Both detectors have the same categories. rows [C]: the index that each class has in the other detector. classes:
        `things` or `stuff`.
        """
        return rows[classes].argsort().argsort()

    def _detected(self, maps: list[Tensor], images: Tensor, padding: Padding) -> RegionOutput:
        output = super()._detected(maps, images, padding)
        return replace(output, labels=[self.things[label] for label in output.labels])

    def _semantic_logits(self, maps: list[Tensor]) -> Tensor:
        logits: Tensor = self.semantic(maps[: len(self.config.stages)])
        return logits.float()
