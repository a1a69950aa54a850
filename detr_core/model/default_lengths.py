"""Defines how long a new profile trains each kind of detector, which `flows.adopt` writes into the profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Duration:
    """How long a training takes. The epochs show the detector about `images` images, but there are `fewest` to `most` epochs.

    On few images a training that is too long is slow, and the detector overfits.
    """

    images: int
    fewest: int
    most: int

    def epochs(self, dataset_size: int) -> int:
        """Returns the number of epochs for a dataset of this many images."""
        return min(self.most, max(self.fewest, self.images // dataset_size))


@dataclass(frozen=True)
class DefaultLength:
    """The length of the training that `flows.adopt` gives to a new profile.

    small: with a backbone for small images. resnet: with a ResNet of torchvision. tuned: from a trained detector; None for a kind
    that can't be fine-tuned. drop: the share of the epochs after which the learning rate of the schedule `step` drops.
    """

    small: Duration
    resnet: Duration
    tuned: Duration | None
    drop: float


# DETR needs the longest training: 300 or 500 epochs on COCO, against 50 for Deformable DETR and 37 for Faster R-CNN. In a
# new profile its training is six times as long as theirs. The demo trains DETR on 10,000 images for 12 epochs.
LONG = DefaultLength(
    small=Duration(120_000, 12, 600), resnet=Duration(1_000_000, 150, 500), tuned=Duration(40_000, 12, 100), drop=0.8
)
SHORT = DefaultLength(small=Duration(20_000, 12, 100), resnet=Duration(166_666, 25, 83), tuned=Duration(6_666, 12, 16), drop=0.8)
