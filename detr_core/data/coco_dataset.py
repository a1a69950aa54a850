"""Reads a split of a COCO dataset image by image, for training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from detr_core.data.annotation_reader import read_annotations
from detr_core.data.images import read_image
from detr_core.data.splits import Split
from detr_core.data.transforms import Transform
from detr_core.structures import Category, Target


@dataclass
class Sample:
    """One image as the network's input before padding (uint8 RGB [3, H, W]), with its target."""

    image: Tensor
    target: Target


class CocoDataset(Dataset[Sample]):
    """Images with instances, or with panoptic segments (things and stuff), as targets.

    categories: sorted by id; a class index is a position in this tuple. image_ids: sorted, including images without annotations.
    sizes: (h, w) of each image as annotated. left_out: reason -> number of objects that are not trained on.
    transform: None leaves images and targets unchanged.
    The constructor raises DatasetError for missing or malformed annotation files. Reading an image raises it if the image file is
    missing or broken.
    """

    def __init__(
        self,
        split: Split,
        targets: Literal["instances", "panoptic"],
        masks: bool,
        transform: Transform | None,
        seed: int,
    ) -> None:
        annotations = read_annotations(split, targets, masks)
        self.split = split
        self.transform = transform
        self.seed = seed
        self.categories: tuple[Category, ...] = annotations.categories
        self.image_ids: list[int] = annotations.image_ids
        self.sizes: list[tuple[int, int]] = annotations.sizes
        self.left_out = annotations.left_out
        self._annotations = annotations

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        """Returns the image at `key`, which is (epoch, index), or an index in epoch 0.

        The random numbers of the transform and the target's `sampling_seed` depend only on (seed, epoch, index), and not on the
        dataloader worker, the number of processes or the images read before. Objects whose box or mask is empty after the
        transform are dropped. An object whose annotation has only a box keeps it, with a mask that is False everywhere.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        size = self.sizes[index]
        annotations = self._annotations
        objects = range(int(annotations.first[index]), int(annotations.first[index + 1]))
        image = read_image(annotations.files[index], size, annotations.value_ranges)
        boxes = torch.from_numpy(annotations.boxes[objects.start : objects.stop].copy())  # arrays of an index are read-only
        masks = None if annotations.masks is None else annotations.masks.of(index, objects, size)
        rng = self._generator(epoch, index)
        if self.transform is not None:
            image, boxes, masks = self.transform(
                image,
                tv_tensors.BoundingBoxes(boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=size),
                None if masks is None else tv_tensors.Mask(masks),
                rng,
            )
        corners = boxes.as_subclass(Tensor).numpy()
        visible = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        if masks is not None:
            assert annotations.masks is not None  # the masks above are decoded from it
            visible &= masks.numpy().any(axis=(1, 2)) | ~annotations.masks.has_mask(objects)
            masks = masks.as_subclass(Tensor)[torch.from_numpy(visible)]
        height, width = image.shape[1:]
        target = Target(
            self.image_ids[index],
            torch.from_numpy(annotations.labels[objects.start : objects.stop][visible]),
            torch.from_numpy(_relative(corners[visible], height, width)),
            masks,
            (height, width),
            size,
            int(rng.integers(2**63)),
        )
        return Sample(image, target)

    def input_size(self, key: tuple[int, int]) -> tuple[int, int]:
        """Returns the (h, w) of the image at `key`, which is (epoch, index), after the transform. The image is not read."""
        epoch, index = key
        size = self.sizes[index]
        return size if self.transform is None else self.transform.size(size, self._generator(epoch, index))

    def _generator(self, epoch: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, epoch, index])


def _relative(boxes: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    # Converts xyxy in pixels to cxcywh in 0..1. It uses numpy, because for a few boxes torch's calls take as long as decoding a
    # small image.
    low, high = boxes[:, :2], boxes[:, 2:]
    relative = np.concatenate([(low + high) / 2, high - low], axis=1)
    relative /= np.array([width, height, width, height], dtype=np.float32)
    return relative
