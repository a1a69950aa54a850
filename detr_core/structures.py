"""Defines the data structures that the packages exchange: categories, targets, batches, outputs, results of validations.

Shape letters, here and in every other file:
    B images in a batch      L decoder layers         Q object queries
    C classes (no-object is class C, the last logit)  T targets (objects) of an image
    D width of the transformer                        H, W rows and columns of an image, a feature map or a mask

Boxes inside a model are cxcywh, normalised to 0..1 by the size of the unpadded image. After the model they are xyxy in pixels
of the original image. In COCO files they are xywh in pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:  # torch takes a second to import, and the check of a dataset and the report use no tensors
    import torch
    from torch import Tensor

MAX_DETECTIONS = 100  # largest number of detections per image for models without queries; COCO's AP uses at most 100


@dataclass(frozen=True)
class Category:
    """A COCO category. A model's class index is a position in a tuple of categories; files hold the category id.

    id: the category id of the annotation file. name: its name, '' if a checkpoint does not state it. isthing: True for a
    countable thing, False for stuff. used: False for an index of the class head that belongs to no category, because COCO's ids
    have gaps; results never show such an index.
    """

    id: int
    name: str
    isthing: bool
    used: bool = True


def category_labels(names: Mapping[int, str]) -> dict[int, str]:
    """Returns a unique label for each category (id -> label), for tables, plots and keys of files.

    names: id -> name. A name may be empty, have several lines, or be that of several categories. A label is the name on one
    line, followed by the id if the name is empty or ambiguous.
    """
    one_line_names = {number: " ".join(name.split()) for number, name in names.items()}
    name_counts = Counter(one_line_names.values())
    labels = {
        number: name if name and name_counts[name] == 1 else f"{name} (id {number})".lstrip()
        for number, name in one_line_names.items()
    }
    if len(set(labels.values())) < len(labels):  # a category's name equals another category's label
        labels = {number: f"{name} (id {number})".lstrip() for number, name in one_line_names.items()}
    return labels


@dataclass
class Target:
    """Ground truth of one image, without crowds and empty boxes.

    image_id: the COCO image id.
    labels [T]: int64, class index (position in the dataset's categories).
    boxes [T, 4]: float32, cxcywh, normalised to 0..1 by `size`.
    masks [T, H, W]: bool, at `size`; None if masks were not requested. The mask of an object whose annotation has only a box is
    False everywhere; no other mask is.
    size: (h, w) of the image as the network gets it, before padding.
    original_size: (h, w) of the image on disk (EXIF rotation applied).
    has_mask [T]: bool, which objects have a mask; on the host, whatever device the target is on; None if it was not computed.
    sampling_seed: the seed of this image in this epoch, for detectors that draw random samples. With a seed per image the samples
    depend neither on the other images of the batch nor on the number of processes.
    """

    image_id: int
    labels: Tensor
    boxes: Tensor
    masks: Tensor | None
    size: tuple[int, int]
    original_size: tuple[int, int]
    sampling_seed: int = 0
    has_mask: Tensor | None = None

    def pin_memory(self) -> Target:
        """Returns the target with its tensors in memory from which a GPU copies while the host goes on."""
        masks = None if self.masks is None else self.masks.pin_memory()
        return replace(self, labels=self.labels.pin_memory(), boxes=self.boxes.pin_memory(), masks=masks)

    def to(self, device: torch.device) -> Target:
        """Returns the target with its tensors on `device`."""
        return replace(
            self,
            labels=self.labels.to(device, non_blocking=True),
            boxes=self.boxes.to(device, non_blocking=True),
            masks=None if self.masks is None else self.masks.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Padding:
    """Says which pixels of a batch are padding, which is at the right and bottom of the smaller images.

    mask [B, H, W]: bool, True on padding. sizes: (h, w) of each image without its padding. The sizes are on the host, so that the
    host need not wait for the GPU to know whether and where there is padding.
    """

    mask: Tensor
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, mask: Tensor) -> Padding:
        """Returns the padding for a mask [B, H, W], from which the sizes are read."""
        heights, widths = (~mask[:, :, 0]).sum(1), (~mask[:, 0]).sum(1)
        return cls(mask, tuple(zip(heights.tolist(), widths.tolist(), strict=True)))

    @classmethod
    def none(cls, images: int, size: tuple[int, int], device: torch.device) -> Padding:
        """Returns the padding of a batch of images that all have the size (H, W): none."""
        import torch

        return cls(torch.zeros(images, *size, dtype=torch.bool, device=device), (size,) * images)

    @property
    def exists(self) -> bool:
        """Whether any pixel is padding."""
        return any(size != tuple(self.mask.shape[1:]) for size in self.sizes)

    def covers_cells(self, size: tuple[int, int]) -> bool:
        """Returns whether padding is the nearest pixel of any cell of a map of this size (h, w)."""
        last = [cells - 1 for cells in size]
        nearest = [index * pixels // cells for index, pixels, cells in zip(last, self.mask.shape[1:], size, strict=True)]
        return any(nearest[0] >= height or nearest[1] >= width for height, width in self.sizes)

    def pin_memory(self) -> Padding:
        """Returns the same padding in memory from which a GPU copies while the host goes on."""
        return replace(self, mask=self.mask.pin_memory())

    def to(self, device: torch.device) -> Padding:
        """Returns the same padding with its mask on `device`."""
        return replace(self, mask=self.mask.to(device, non_blocking=True))


@dataclass
class Batch:
    """Images padded at the right and bottom to the size of the largest image, with their targets.

    images [B, 3, H, W]: uint8 RGB; padding holds zeros.
    targets: a list of B targets.
    """

    images: Tensor
    padding: Padding
    targets: list[Target]

    def pin_memory(self) -> Batch:
        """Returns the batch in memory from which a GPU copies while the host goes on. A dataloader calls this method."""
        return Batch(self.images.pin_memory(), self.padding.pin_memory(), [target.pin_memory() for target in self.targets])

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on `device`. Images are copied as uint8; the model normalises them on the device."""
        return Batch(
            self.images.to(device, non_blocking=True),
            self.padding.to(device),
            [target.to(device) for target in self.targets],
        )

    def record_stream(self, stream: torch.Stream) -> None:
        """Keeps the memory of a batch that another stream has copied to the GPU until `stream` no longer uses it."""
        masks = [target.masks for target in self.targets if target.masks is not None]
        used = [part for target in self.targets for part in (target.labels, target.boxes)]
        for tensor in (self.images, self.padding.mask, *used, *masks):
            tensor.record_stream(stream)


@dataclass
class SoftmaxOutput:
    """The output of DETR for a batch.

    logits [L, B, Q, C+1] and boxes [L, B, Q, 4] (cxcywh, normalised to 0..1) of all decoder layers, in the order of the layers.
    queries [B, Q, D]: the last decoder layer's normalised output embeddings.
    memory [B, D, h, w]: the encoder's output. projected [B, D, h, w]: the encoder's input, which is the projected backbone map.
    padding [B, h, w]: bool, True on padding, at the feature map's size.
    pyramid: the backbone's feature maps of layers 3, 2 and 1 for the mask head; empty if the model has no mask head.
    """

    logits: Tensor
    boxes: Tensor
    queries: Tensor
    memory: Tensor
    projected: Tensor
    padding: Tensor
    pyramid: tuple[Tensor, ...] = ()


@dataclass
class SigmoidOutput:
    """The output of Deformable DETR for a batch.

    logits [L, B, Q, C] (one sigmoid per class; there is no no-object class) and boxes [L, B, Q, 4] (cxcywh, normalised to 0..1)
    of all decoder layers, in the order of the layers. proposals: what the encoder of a two-stage detector predicts; None for a
    detector whose queries are learned.
    """

    logits: Tensor
    boxes: Tensor
    proposals: Proposals | None = None


@dataclass
class Proposals:
    """The boxes that the encoder of a two-stage Deformable DETR predicts at the N positions of all levels.

    logits [B, N, C]: that of class 0 says whether there is an object of any class. boxes [B, N, 4]: cxcywh, normalised to 0..1.
    """

    logits: Tensor
    boxes: Tensor


@dataclass
class RegionOutput:
    """The detections of Faster R-CNN, and of the detectors that are built on it, in each image of a batch, after their
    non-maximum suppression.

    boxes: one tensor [N, 4] per image, xyxy, normalised to 0..1 by the unpadded image. scores, labels: one tensor [N] per image,
    probabilities and class indices, in descending order of the score.
    mask_logits: one tensor [N, 28, 28] per image, the mask of each detection inside its box; None if the detector predicts no
    masks. semantic [B, K, h, w]: logits of a semantic segmentation of the padded images, at the resolution of the finest map; the
    kind of detector defines the K channels; None if the detector predicts no panoptic maps.
    """

    boxes: list[Tensor]
    scores: list[Tensor]
    labels: list[Tensor]
    mask_logits: list[Tensor] | None = None
    semantic: Tensor | None = None


AnyOutput = SoftmaxOutput | SigmoidOutput | RegionOutput


@dataclass
class ImageRegions:
    """What a detector with masks of its own (`RegionOutput`) found in one image, at the size of the image on disk.

    size: (H, W) of the image. boxes [N, 4]: xyxy in pixels. scores, labels [N]: probabilities and class indices. mask_logits [N,
    28, 28]: the mask of each detection inside its box. semantic [K, H, W]: logits of the semantic segmentation, None without one.
    """

    size: tuple[int, int]
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_logits: Tensor
    semantic: Tensor | None

    def chosen(self, which: Tensor) -> ImageRegions:
        """Returns the same with the detections that `which`, an index or bool [N], selects."""
        return replace(
            self,
            boxes=self.boxes[which],
            scores=self.scores[which],
            labels=self.labels[which],
            mask_logits=self.mask_logits[which],
        )


class Segment(TypedDict):
    """One segment of a panoptic map.

    id: the value of its pixels in the map. isthing: whether its class is a thing. category_id: class index. area: number of
    pixels in the original image.
    """

    id: int
    isthing: bool
    category_id: int
    area: int


@dataclass(frozen=True)
class Validation:
    """The result of a validation. metrics: `val/...` scalars. score: selects the best checkpoint; higher is better."""

    metrics: dict[str, float]
    score: float
