"""Checks whether a dataset suits a kind of detector that learns masks by itself; `mask_targets` has the checks themselves."""

from __future__ import annotations

from collections.abc import Mapping

from detr_core.data.annotations import Targets
from detr_core.data.splits import Split
from detr_core.model.spec import KINDS, kind_of
from detr_core.train.mask_targets import MaskLearner, require_masks, require_things_and_stuff


def learns_masks(kind: str) -> bool:
    """Returns whether this kind of detector learns masks by itself, in its own training."""
    return "masks" in kind_of(kind).capabilities


def require_targets(splits: Mapping[str, Split], kind: str, targets: Targets, where: str) -> None:
    """Raises DatasetError, which names the file, the key and the kind, if this kind of detector can't learn from the dataset.

    splits: 'train' and 'val', of the dataset in the file `where`. A kind that learns no masks by itself needs nothing special.
    """
    if not learns_masks(kind):
        return
    panoptic = "panoptic" in kind_of(kind).capabilities
    others = ", ".join(repr(name) for name in KINDS if not learns_masks(name))
    learner = MaskLearner(
        f"detector.kind {kind!r}",
        "" if panoptic else "train_detection.targets",
        f"detector.kind to one that learns no masks by itself ({others})",
    )
    require_masks(splits, targets, where, learner)
    if panoptic:
        require_things_and_stuff(splits, where, learner)
