"""Reads what a dataset contains: the statistics of its splits and the faults of its annotations."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from detr_core.check.conversion import unreadable_images
from detr_core.check.entries import category_difference, category_names, check_entries
from detr_core.check.findings import Finding
from detr_core.check.statistics import Statistics, count
from detr_core.data.annotations import Targets
from detr_core.data.fields import read_content
from detr_core.data.splits import read_dataset
from detr_core.data.splits import targets as targets_of
from detr_core.data.values import first_sample_type
from detr_core.sources.config import FolderConfig
from flows.new_profile.yolo_layout import yolo_set
from flows.profile import paths

_HEADERS = 50  # the number of training images whose header is read


@dataclass(frozen=True)
class DatasetContents:
    """The content of a dataset.

    statistics: those of 'train' and 'val'. findings: the faults of the annotations. notes: lines for the user. masks: the targets
    of which a mask head can be trained: 'panoptic' if both splits have panoptic annotations, else 'instances' if the instances
    have masks, as `require_masks` of detr_core/train/mask_targets.py demands, else None. deep: the sample type of the first
    training image with more than 8 bits a value, or None. stuff: whether panoptic annotations have categories of things and of
    stuff.
    """

    statistics: dict[str, Statistics]
    findings: list[Finding]
    notes: list[str]
    masks: Targets | None
    deep: str | None
    stuff: bool


def read_contents(config: FolderConfig, seed: int) -> DatasetContents:
    """Reads the annotations of both splits, and the headers of the first training images."""
    from detr_core.sources.folder import write_folder_dataset  # torch takes seconds to import

    root = (paths.ROOT / config.root).resolve()
    with TemporaryDirectory() as temporary:
        write_folder_dataset(config, root, seed, yolo_set(root) if config.format == "yolo" else None, Path(temporary))
        splits = read_dataset(Path(temporary))
        statistics: dict[str, Statistics] = {}
        names: dict[str, dict[int, str]] = {}
        findings: list[Finding] = []
        masked: set[str] = set()
        targets = targets_of(splits["train"] if splits["val"].panoptic is not None else splits["val"])
        copies = _copy_note(*(getattr(splits[name], targets) for name in ("train", "val")))
        for name, split in splits.items():
            file = getattr(split, targets)
            content = read_content(file)
            names[name] = category_names(content, str(file))
            entries = check_entries(content, name, targets)
            findings += [*entries.findings, *unreadable_images(content, name, targets)]
            statistics[name] = count(entries, names[name])
            if _has_masks(content, name, entries.findings):
                masked.add(name)
            if name == "train":
                deep = first_sample_type(split.images / image.name for image in islice(entries.images.values(), _HEADERS))
    if config.format != "coco":  # indices are those of the converted file, which the user cannot see
        findings = [replace(finding, entry_index=None) for finding in findings]
    difference = category_difference(names)
    notes = (
        [f"the categories differ between the splits, and the check stops at such a dataset: {difference}"] if difference else []
    )
    notes += copies
    masks = targets if targets == "panoptic" or masked == {"train", "val"} else None
    kinds = {bool(entry.get("isthing")) for entry in content["categories"] if isinstance(entry, dict)}
    return DatasetContents(statistics, findings, notes, masks, deep, masks == "panoptic" and kinds == {True, False})


def _copy_note(train: Path, val: Path) -> list[str]:
    """Returns a line for the user if the annotation files of the two splits have the same content; otherwise none."""
    if not filecmp.cmp(train, val, shallow=False):
        return []
    return [
        f"the annotations of val are a copy of those of train ({val.name} has the same content as {train.name}), and the check "
        "stops at images that are in both splits; to validate on a share of the training images instead, set `val: null` and "
        "`val_share: 0.2` in the profile's `data.folder`"
    ]


def _has_masks(content: Mapping[str, Any], split: str, findings: Sequence[Finding]) -> bool:
    """Returns whether objects of an instances file have masks: some in the train split, all in the val split."""
    objects = [entry for entry in content["annotations"] if isinstance(entry, dict) and not entry.get("iscrowd")]
    complete = all(finding.kind != "object_without_mask" for finding in findings)
    return any(entry.get("segmentation") for entry in objects) and (split == "train" or complete)
