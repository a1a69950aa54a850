"""Recognises the layout of a dataset folder and writes the section `data.folder` that reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detr_core.config import ConfigError, build
from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError
from detr_core.sources.formats.coco_layout import annotation_files, coco_folders, coco_layout
from detr_core.sources.formats.spec import FORMATS, Splits
from detr_core.sources.formats.split_names import split_named
from detr_core.sources.formats.voc_layout import DEPTH, subfolders
from detr_core.sources.formats.yolo import YoloSet, split_pictures, yolo_labels
from detr_core.sources.formats.yolo_rows import Labels
from detr_core.sources.picture_files import is_file, missing_note, picture_files
from flows.new_profile.dataset_notes import coco_notes
from flows.new_profile.no_dataset import no_dataset
from flows.new_profile.yolo_layout import yolo_description, yolo_layout, yolo_set


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
    Raises DatasetError if the folder has none of the known layouts, or if its splits are ambiguous: the message names the files,
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
    yolo_keys: dict[str, Any] = {}
    if yolo_description(folder) is None:
        _require_one(folder)
    if yolo_description(folder) is not None:
        kind, (splits, notes) = "yolo", yolo_layout(folder)
        yolo = yolo_set(folder)
        configs = {name: build(SplitConfig, entry, yolo.file) for name, entry in splits.items()}
        notes += [note for name, config in configs.items() for note in _yolo_notes(folder, name, config, yolo)]
        yolo_keys = {"labels": labels or yolo_labels(folder, configs, yolo)}
    elif converted := _converted_layout(folder):
        kind, splits, notes = converted
    else:
        files, refused = annotation_files(folder)
        if not files:
            raise DatasetError(no_dataset(folder, refused))
        kind, layout = "coco", coco_layout(folder, files)
        splits, notes = layout.splits, coco_notes(folder, layout)
    if labels is not None and kind != "yolo":
        raise ConfigError(
            f"--labels: expected only with a YOLO dataset, found a dataset in the format {kind!r}; leave the option out"
        )
    val = splits.get("val") or splits.get("test")
    notes += [] if val else _sibling_splits(folder)
    section = {"format": kind, "train": splits["train"], "val": val, "val_share": None if val else share, **yolo_keys}
    return Layout(section, notes)


def _converted_layout(folder: Path) -> tuple[str, Splits, list[str]] | None:
    """Returns the name of the first format in FORMATS whose files the folder has, the splits and the notes; None without one."""
    for name, annotation_format in FORMATS.items():
        functions = annotation_format.functions()
        if folders := functions.folders(folder):
            return name, *functions.layout(folder, folders)
    return None


def _require_one(folder: Path) -> None:
    """Raises DatasetError, which names the folders, if several datasets lie in folders below this one."""
    folders = _dataset_folders(folder)
    if folder in folders or len(folders) < 2:
        return
    datasets = [f"{path.relative_to(folder)} ({kind})" for path, kind in sorted(folders.items()) if _is_complete(path, kind)]
    if len(datasets) > 1:
        raise DatasetError(
            f"{folder}: expected one dataset, found {len(datasets)} in folders below it: {', '.join(datasets)}; "
            "give one of these folders instead"
        )


def _dataset_folders(folder: Path) -> dict[Path, str]:
    """Returns the folders of the datasets in `folder` and below it, with their formats; none of them is below another one."""
    formats: dict[Path, str] = {}
    for path in subfolders(folder, DEPTH):
        if _has_description(path) and formats.keys().isdisjoint(path.parents):
            formats[path] = "YOLO"
    converted = [(path, kind.title) for kind in FORMATS.values() for path in kind.functions().folders(folder)]
    for path, kind in [*converted, *((path, "COCO") for path in coco_folders(folder))]:
        root = path  # annotation files may lie in a part of the dataset: in a folder of a split, or in one without images
        while root != folder and (split_named(root.name) or next(picture_files(root), None) is None):
            root = root.parent
        formats.setdefault(root, kind)
    return {path: kind for path, kind in formats.items() if formats.keys().isdisjoint(path.parents)}


def _has_description(folder: Path) -> bool:
    try:
        return yolo_description(folder) is not None
    except DatasetError:
        return True  # several files could be the description


def _is_complete(folder: Path, kind: str) -> bool:
    """Returns whether the folder can be used as a dataset by itself."""
    try:
        if kind == "COCO":
            coco_layout(folder, annotation_files(folder)[0])
        elif kind != "YOLO":
            _converted_layout(folder)
    except DatasetError:
        return False
    return True


def _sibling_splits(folder: Path) -> list[str]:
    """Returns a line if the folder seems to be one split of a dataset, because folders beside it are named after other splits."""
    split = split_named(folder.name)
    siblings = [
        path.name
        for path in sorted(folder.parent.iterdir() if split else ())
        if split_named(path.name) not in ("", split) and path.is_dir() and next(picture_files(path), None) is not None
    ]
    if not siblings:
        return []
    predicate = "looks like another split" if len(siblings) == 1 else "look like other splits"
    return [f"{' and '.join(siblings)} beside {folder.name} {predicate} of the dataset: give {folder.parent} to use all of them"]


def _yolo_notes(folder: Path, name: str, config: SplitConfig, yolo: YoloSet) -> list[str]:
    """Returns a line if images of a split are missing, and one if images have no label file."""
    pictures = split_pictures(folder, name, config, yolo)
    missing = [str(picture.file.relative_to(folder)) for picture in pictures if not is_file(picture.file)]
    notes = missing_note(name, missing, len(pictures))
    without_labels = sum(not is_file(picture.labels) for picture in pictures)
    if without_labels and without_labels < len(pictures):  # a dataset without any label file is refused elsewhere
        predicate = (
            "has no label file: it is used as an image" if without_labels == 1 else "have no label file: they are used as images"
        )
        notes.append(f"{name}: {without_labels} of {len(pictures)} images {predicate} without objects")
    return notes
