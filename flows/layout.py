"""Recognises the layout of a dataset folder (COCO, YOLO or Pascal VOC) and writes the section `data.folder` that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detr_core.config import ConfigError, build
from detr_core.data.config import SplitConfig
from detr_core.data.dataset import DatasetError
from detr_core.data.picture_files import is_file
from detr_core.data.voc import missing_images
from detr_core.data.yolo import YoloSet, split_pictures, yolo_labels
from detr_core.data.yolo_rows import Labels
from flows.coco_layout import coco_layout
from flows.told import coco_notes, missing_note
from flows.voc_layout import voc_folders, voc_layout
from flows.yolo_layout import yolo_description, yolo_layout, yolo_set


@dataclass(frozen=True)
class Layout:
    """The layout of a dataset folder.

    section: the content of `data.folder`, except for `root`. notes: messages for the user about which images are used.
    """

    section: dict[str, Any]
    notes: list[str]


def find_layout(folder: Path, share: float, labels: Labels | None = None) -> Layout:
    """Finds the layout of a dataset's folder.

    share: the share of the training images that is used for validation if the folder has no validation split. labels: how to read
    the rows of YOLO's label files; with None, this is decided from all label files together.
    Raises DatasetError if the folder has none of the three layouts, or if its splits are ambiguous: the message names the files,
    so that a user can write the profile by hand. Raises ConfigError if `labels` is given for another format than YOLO.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a dataset folder, found no folder there")
    try:
        return _layout(folder, share, labels)
    except (OSError, ValueError) as error:
        if isinstance(error, (DatasetError, ConfigError)):
            raise
        raise DatasetError(f"{folder}: expected a folder that can be read: {error}") from None


def _layout(folder: Path, share: float, labels: Labels | None) -> Layout:
    more: dict[str, Any] = {}
    if yolo_description(folder) is not None:
        kind, (splits, notes) = "yolo", yolo_layout(folder)
        described = yolo_set(folder)
        configs = {name: build(SplitConfig, entry, described.file) for name, entry in splits.items()}
        notes += [note for name, config in configs.items() for note in _yolo_notes(folder, name, config, described)]
        more = {"labels": labels or yolo_labels(folder, configs, described)}
    elif places := voc_folders(folder):
        kind, (splits, notes) = "voc", voc_layout(folder, places)
        for name, entry in splits.items():
            missing, listed = missing_images(folder, build(SplitConfig, entry, str(folder)))
            notes += missing_note(name, [f"{entry['images']}/{image}" for image in missing], listed)
    else:
        kind, found = "coco", coco_layout(folder)
        splits, notes = found.splits, coco_notes(folder, found)
    if labels is not None and kind != "yolo":
        raise ConfigError(
            f"--labels: expected only with a YOLO dataset, found a dataset in the format {kind!r}; leave the option out"
        )
    val = splits.get("val") or splits.get("test")
    section = {"format": kind, "train": splits["train"], "val": val, "val_share": None if val else share, **more}
    return Layout(section, notes)


def _yolo_notes(folder: Path, name: str, config: SplitConfig, described: YoloSet) -> list[str]:
    """Returns a line if images of a split are missing, and one if images have no label file."""
    pictures = split_pictures(folder, name, config, described)
    missing = [str(picture.file.relative_to(folder)) for picture in pictures if not is_file(picture.file)]
    notes = missing_note(name, missing, len(pictures))
    without = sum(not is_file(picture.labels) for picture in pictures)
    if without and without < len(pictures):  # a dataset without any label file is refused elsewhere
        are = "has no label file: it is used as an image" if without == 1 else "have no label file: they are used as images"
        notes.append(f"{name}: {without} of {len(pictures)} images {are} without objects")
    return notes
