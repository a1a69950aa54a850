"""What flows between the rooms: categories, targets, batches and the model's output.

Shape letters, here and in every other file:
    B images in a batch      L decoder layers         Q object queries
    C classes (no-object is class C, the last logit)  T targets (objects) of an image
    D width of the transformer                        H, W rows and columns of an image, a feature map or a mask

Boxes inside the model are cxcywh, 0..1 of the unpadded image; after the model they are xyxy pixels of the original image;
in COCO files xywh pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MOST = 100  # detections of an image, where queries don't bound them: COCO's average precision looks at no more


@dataclass(frozen=True)
class Category:
    """A COCO category. A model's class index is a position in a tuple of these; files hold the id.

    id: the category id of the annotation file; name: its name, '' where a checkpoint doesn't say; isthing: True for a countable
    thing, False for stuff. used: False for an index of the class head that stands for no category, because COCO never gave its
    id to one; no result may show it.
    """

    id: int
    name: str
    isthing: bool
    used: bool = True


def category_labels(names: Mapping[int, str]) -> dict[int, str]:
    """What each category is called where it has to be told from all others: id -> label, for tables, plots and keys of files.

    names: id -> name, which may be empty, of several lines or another category's too. A label is the name on one line, with the
    id where the name alone would be ambiguous.
    """
    plain = {number: " ".join(name.split()) for number, name in names.items()}
    often = Counter(plain.values())
    labels = {number: name if name and often[name] == 1 else f"{name} (id {number})".lstrip() for number, name in plain.items()}
    if len(set(labels.values())) < len(labels):  # a category is called what another one's label is
        labels = {number: f"{name} (id {number})".lstrip() for number, name in plain.items()}
    return labels


@dataclass
class Target:
    """Ground truth of one image, crowds and empty boxes left out.

    image_id: the COCO image id.
    labels [T]: int64, class index (position in the dataset's categories).
    boxes [T, 4]: float32, cxcywh, 0..1 of `size`.
    masks [T, H, W]: bool, at `size`; None where masks were not asked for.
    size: (h, w) of the image as the network gets it, before padding.
    original_size: (h, w) of the image on disk (EXIF rotation applied).
    chance: a random number of this image in this epoch, for a detector that draws at random: what it draws then depends neither
    on the other images of the batch nor on the number of processes.
    """

    image_id: int
    labels: Tensor
    boxes: Tensor
    masks: Tensor | None
    size: tuple[int, int]
    original_size: tuple[int, int]
    chance: int = 0

    def to(self, device: torch.device) -> Target:
        """The same target with its tensors on `device`."""
        return replace(
            self,
            labels=self.labels.to(device, non_blocking=True),
            boxes=self.boxes.to(device, non_blocking=True),
            masks=None if self.masks is None else self.masks.to(device, non_blocking=True),
        )


@dataclass
class Batch:
    """Images padded at the right and bottom to the largest of them, with their targets.

    images [B, 3, H, W]: uint8 RGB; padding holds zeros.
    padding [B, H, W]: bool, True on padding.
    targets: B of them.
    """

    images: Tensor
    padding: Tensor
    targets: list[Target]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; images travel as uint8 and are normalised there."""
        return Batch(
            self.images.to(device, non_blocking=True),
            self.padding.to(device, non_blocking=True),
            [target.to(device) for target in self.targets],
        )


@dataclass
class Output:
    """What DETR says of a batch.

    logits [L, B, Q, C+1] and boxes [L, B, Q, 4] (cxcywh, 0..1) of every decoder layer, the last one last.
    queries [B, Q, D]: the last decoder layer's normalised output embeddings.
    memory [B, D, h, w]: the encoder's output; projected [B, D, h, w]: its input, the projected backbone map.
    padding [B, h, w]: bool, True on padding, at the feature map's size.
    pyramid: the backbone's maps of layers 3, 2 and 1 for the mask head (empty where the model has none).
    """

    logits: Tensor
    boxes: Tensor
    queries: Tensor
    memory: Tensor
    projected: Tensor
    padding: Tensor
    pyramid: tuple[Tensor, ...] = ()


@dataclass
class DeformableOutput:
    """What Deformable DETR says of a batch.

    logits [L, B, Q, C] (a sigmoid each; there is no no-object class) and boxes [L, B, Q, 4] (cxcywh, 0..1) of every decoder
    layer, the last one last.
    """

    logits: Tensor
    boxes: Tensor


@dataclass
class RegionOutput:
    """What Faster R-CNN finds in each image of a batch, after its own non-maximum suppression.

    boxes: [N, 4] each, xyxy, 0..1 of the unpadded image. scores, labels: [N] each, probability and class index, surest first.
    """

    boxes: list[Tensor]
    scores: list[Tensor]
    labels: list[Tensor]


AnyOutput = Output | DeformableOutput | RegionOutput
