"""Checks whether a dataset has the masks, and the kinds of categories, that a training needs; it computes no targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from detr_core.data.annotation_reader import read_annotations
from detr_core.data.annotations import Targets
from detr_core.data.splits import DatasetError, Split
from detr_core.wording import counted


@dataclass(frozen=True)
class MaskLearner:
    """What learns masks, for error messages.

    name: such as 'the mask head'. targets: the keys of the profile that name its targets; '' if it can have no others. instead:
    what to set in the profile so that no masks are needed.
    """

    name: str
    targets: str
    instead: str


MASK_HEAD = MaskLearner("the mask head", "train_panoptic.targets and train_detection.targets", "train_panoptic to null")


def require_masks(splits: Mapping[str, Split], targets: Targets, where: str, learner: MaskLearner) -> None:
    """Raises DatasetError, which names file and key, unless masks can be learned and validated on these targets.

    splits: 'train' and 'val', of the dataset in the file `where`. With 'instances' at least one training object must have a mask:
    an object that has only a box teaches no mask. On the val split every object except crowds must have one, because the average
    precision of masks is not defined otherwise.
    """
    for name, split in splits.items():
        if getattr(split, targets) is None:
            other = "instances" if targets == "panoptic" else "panoptic"
            others = f"{learner.targets} to {other!r}, or " if learner.targets else ""
            raise DatasetError(
                f"{where}: {name}.{targets}: expected {_WORDS[targets]} for {learner.name}, found null; add them, or set "
                f"{others}{learner.instead}"
            )
        if targets == "instances":
            _require_instance_masks(split, learner)


def require_things_and_stuff(splits: Mapping[str, Split], where: str, learner: MaskLearner) -> None:
    """Raises DatasetError, which names the file, unless the panoptic annotations have categories of things and of stuff.

    The splits must have panoptic annotations, which `require_masks` checks.
    """
    for name, split in splits.items():
        categories = read_annotations(split, "panoptic", masks=False).categories
        things = sum(category.isthing for category in categories)
        stuff = len(categories) - things
        if things == 0 or stuff == 0:
            found = f"{counted(things, 'category', 'categories')} of things and {stuff} of stuff"
            raise DatasetError(
                f"{where}: {name}.panoptic: {split.panoptic}: categories.isthing: expected categories of things and of stuff for "
                f"{learner.name}, found {found}; add the others, or set {learner.instead}"
            )


_WORDS = {"panoptic": "panoptic annotations", "instances": "instance annotations with masks"}


def _require_instance_masks(split: Split, learner: MaskLearner) -> None:
    file: Path | None = split.instances
    annotations = read_annotations(split, "instances", masks=True)
    assert annotations.masks is not None  # they were requested
    has_mask = annotations.masks.has_mask(range(len(annotations.labels)))
    train = split.name == "train"
    enough, expected = (has_mask.any(), "a mask of an object") if train else (has_mask.all(), "a mask of every object")
    if not enough:
        raise DatasetError(
            f"{file}: annotations.segmentation: expected {expected} that is not a crowd, for {learner.name} with targets "
            f"'instances', found {has_mask.sum():,} masks of {len(has_mask):,} objects; add the masks, or set {learner.instead}"
        )
