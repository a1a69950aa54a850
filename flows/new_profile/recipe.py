"""Chooses the recipe of a new profile: it is copied from another profile, or from a trained checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from detr_core.config import ConfigError, as_dict
from detr_core.data.annotations import Targets
from detr_core.model.spec import kind_of, kinds_with
from flows.new_profile.dataset_contents import DatasetContents
from flows.new_profile.profile_text import read_with_comments
from flows.profile.paths import Paths, relative
from flows.profile.settings import overridden, read, require_known


@dataclass(frozen=True)
class Start:
    """The checkpoint that fine-tuning starts from: a path, or an address with the checksum of its file."""

    checkpoint: str
    sha256: str | None


def copied_recipe(like: str, detector: str | None, start: Start | None) -> tuple[Any, Any]:
    """Returns the contents of the two files of the profile `like`, with comments, but without the studies that train.

    detector: a variant of the profile's study `baselines` or `panoptic`, whose detector and recipe are used instead; with None
    the profile's own are used. start: the checkpoint that fine-tuning starts from. It excludes a variant, because it has its own
    detector; the recipe is that of the profile, or of the first of these variants that is of the checkpoint's kind.
    Raises ConfigError for an unknown profile or variant, an invalid profile, a variant together with a checkpoint, or a
    checkpoint of a kind that can't be fine-tuned or that the profile has no recipe for; CheckpointError if the checkpoint can't
    be read.
    """
    require_known(like, "--like")
    model = Paths(like)
    if detector is not None and start is not None:
        raise ConfigError("--detector: expected no --checkpoint, because a checkpoint has its own detector; give only one")
    read(model.params)  # reports the errors of the profile, with the file's name, before any work
    content, studies = read_with_comments(model.params), read_with_comments(model.studies_params)
    where = relative(model.studies_params)
    if detector is not None:
        content = _with_detector(content, studies, detector, where)
    elif start is not None:
        content = _starting_from(start, content, studies, where)
    studies["training"] = {}  # the schedules of these studies fit the copied profile, not the new dataset
    return content, studies


def _with_detector(content: Any, studies: Any, name: str, where: str) -> Any:
    """Returns a copy of a profile's content with the detector and recipe of a variant of its study `baselines` or `panoptic`.

    name: that of the variant. studies: the content of the profile's second file. where: its name, for errors.
    """
    variants = _variants(studies)
    if name not in variants:
        known_variants = ", ".join(variants) or "none"
        expected = f"a variant of training.baselines or training.panoptic in {where} ({known_variants})"
        raise ConfigError(f"--detector: expected {expected}, found {name!r}")
    overrides = json.loads(json.dumps(variants[name]))  # this removes anchors and comments
    for key in overrides:
        *path, last = key.split(".")
        reduce(getitem, path, content).setdefault(last, None)  # an optional key that the profile leaves out
    content = overridden(content, overrides, f"{where}: the variant {name!r}")
    for key in overrides:
        *path, last = key.split(".")
        reduce(getitem, path, content).ca.items.pop(last, None)  # the comment described the old value
    if "mask_head" not in kind_of(content["detector"]["kind"]).capabilities:
        content["train_panoptic"] = None
    return content


def _variants(studies: Any) -> dict[str, Any]:
    """Returns the variants of the study `baselines`, and those of the study `panoptic` that have another kind of detector."""
    baselines, panoptic = (studies["training"].get(study, {}).get("variants", {}) for study in ("baselines", "panoptic"))
    return {name: variant for name, variant in panoptic.items() if "detector" in variant} | dict(baselines)


def targets_of_masks(content: Any, dataset: DatasetContents, folder: Path, option: str) -> Targets | None:
    """Returns the targets of the masks that a profile learns, with a mask head or by its detector; None if it learns none.

    dataset: the content of `folder`. option: the option of the command line that chose the detector. Raises ConfigError if the
    detector learns by itself what the dataset does not have: masks, or things and stuff. A mask head is left out instead.
    """
    kind, available = content["detector"]["kind"], dataset.masks
    if "panoptic" in kind_of(kind).capabilities and not dataset.stuff:
        present = {"instances": "masks of instances only", "panoptic": "things only or stuff only", None: "no masks"}[available]
        raise ConfigError(
            f"{option}: expected panoptic annotations of things and stuff in {folder} for the kind {kind!r}, for both splits, "
            f"found {present}; choose another detector, or add such annotations: a JSON file and a folder of PNGs for each split"
        )
    if "masks" in kind_of(kind).capabilities:
        if available is None:
            raise ConfigError(
                f"{option}: expected a detector that learns no masks, because the objects of {folder} have none; found the kind "
                f"{kind!r}; choose a detector of boxes, or add masks to the dataset"
            )
        return available
    return available if content["train_panoptic"] is not None else None


def _starting_from(start: Start, content: Any, studies: Any, where: str) -> Any:
    """Returns a copy of a profile's content with the detector of a checkpoint, from whose weights its trainings start.

    studies: the content of the profile's second file. where: its name, for errors. Raises ConfigError and CheckpointError as
    `copied_recipe` does.
    """
    detector, maps = _built_as(start)
    kind = detector["kind"]
    if content["detector"]["kind"] != kind:
        kinds = {name: (variant.get("detector") or {}).get("kind") for name, variant in _variants(studies).items()}
        fitting = [name for name in kinds if kinds[name] == kind]
        if not fitting:
            own = content["detector"]["kind"]
            expected = f"a detector of the profile's kind {own!r}, or of a kind in training.baselines or training.panoptic"
            raise ConfigError(f"--checkpoint: expected {expected} in {where}, whose recipe fits it, found {kind!r}")
        content = _with_detector(content, studies, fitting[0], where)
    init = {"checkpoint": start.checkpoint, "sha256": start.sha256}
    content["train_detection"]["init"], content["detector"] = init, detector
    if maps is not None and content["train_panoptic"] is not None:
        content["train_panoptic"] |= {"init": dict(init), "attention_maps": maps, "attention_gain": 1}
    return content


def _built_as(start: Start) -> tuple[dict[str, Any], str | None]:
    """Returns the section `detector` of a checkpoint, and the setting `attention_maps` of its mask head, None without one."""
    import torch

    from detr_core.model.checkpoint import load_checkpoint
    from flows.profile.checkpoints import local_file

    model = load_checkpoint(local_file(start.checkpoint, start.sha256), torch.device("cpu")).model
    if "init" not in kind_of(model.config.kind).capabilities:
        expected = f"a detector of kind {kinds_with('init')}, which can be fine-tuned"
        raise ConfigError(f"--checkpoint: expected {expected}, found {model.config.kind!r}")
    return as_dict(model.config), model.attention_maps if model.has_mask_head else None
