"""Checks that a dataset has the masks that a training of the mask head needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detr_core.data.annotation_reader import read_annotations
from detr_core.data.annotations import Targets
from detr_core.data.splits import DatasetError, Split


def require_masks(splits: Mapping[str, Split], targets: Targets, where: str) -> None:
    """Raises DatasetError, which names file and key, unless the mask head can be trained and validated on these targets.

    splits: 'train' and 'val', of the dataset in the file `where`. With 'instances' at least one training object must have a mask:
    an object that has only a box teaches no mask. On the val split every object except crowds must have one, because the average
    precision of masks is not defined otherwise.
    """
    for name, split in splits.items():
        if getattr(split, targets) is None:
            alternative = "instances" if targets == "panoptic" else "panoptic"
            raise DatasetError(
                f"{where}: {name}.{targets}: expected {_WORDS[targets]} for the mask head, found null; add them, or set "
                f"train_panoptic.targets and train_detection.targets to {alternative!r}, or train_panoptic to null"
            )
        if targets == "instances":
            _require_instance_masks(split)


_WORDS = {"panoptic": "panoptic annotations", "instances": "instance annotations with masks"}


def _require_instance_masks(split: Split) -> None:
    file: Path | None = split.instances
    annotations = read_annotations(split, "instances", masks=True)
    assert annotations.masks is not None  # they were requested
    has_mask = annotations.masks.has_mask(range(len(annotations.labels)))
    train = split.name == "train"
    enough, expected = (has_mask.any(), "a mask of an object") if train else (has_mask.all(), "a mask of every object")
    if not enough:
        raise DatasetError(
            f"{file}: annotations.segmentation: expected {expected} that is not a crowd, for train_panoptic.targets 'instances', "
            f"found {has_mask.sum():,} masks of {len(has_mask):,} objects; add the masks, or set train_panoptic to null"
        )
