"""Reads and writes `dataset.json`, the file by which later stages find the images and annotations of a dataset."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from detr_core.config import ConfigError, build
from detr_core.data.config import SplitConfig
from detr_core.data.values import Range, Ranges
from detr_core.errors import ExpectedError

NAME = "dataset.json"
INDEX = "index"  # the name of the folder of the index, beside a dataset.json
PARTS = {
    "images": "the folder of the images",
    "instances": "COCO's annotation file",
    "panoptic": "COCO's panoptic annotation file",
    "panoptic_masks": "the folder of the panoptic PNGs",
}


class DatasetError(ExpectedError, ValueError):
    """A dataset can't be used. The message names the file and the field, what was expected and what was found."""


@dataclass(frozen=True)
class Split:
    """The files and folders of one split of a dataset; all paths are absolute.

    images: the folder of images. instances: `instances_*.json`. panoptic: `panoptic_*.json`. panoptic_masks: the folder of the
    panoptic PNGs, given exactly when `panoptic` is. At least one of instances and panoptic is given. index: the folder of
    the index, which need not exist; two splits that differ only in it are equal. value_ranges: sample type -> the values by
    which images of more than 8 bits per value are scaled; None if the data check has not determined them.
    """

    name: str
    images: Path
    instances: Path | None
    panoptic: Path | None
    panoptic_masks: Path | None
    index: Path | None = field(default=None, compare=False)
    value_ranges: Ranges | None = field(default=None, hash=False)


@dataclass(frozen=True)
class DatasetFile:
    """The content of `dataset.json`.

    root: the folder that the paths of images and panoptic PNGs start from. annotations: the folder that the paths of annotation
    files start from. Both are absolute, or relative to the folder of `dataset.json`. value_ranges: see Split.
    """

    root: str
    annotations: str
    train: SplitConfig
    val: SplitConfig
    value_ranges: dict[str, Range] | None = None

    def splits(self, folder: Path, where: str) -> dict[str, Split]:
        """Returns the splits 'train' and 'val' with absolute paths. folder: the folder of `dataset.json`.

        Raises DatasetError if a file or folder does not exist. where: the beginning of the error's message.
        """
        root, annotations = (folder / self.root).resolve(), (folder / self.annotations).resolve()
        absolute = {name: _located(root, annotations, name, getattr(self, name), where) for name in ("train", "val")}
        return {
            name: replace(split, index=folder / INDEX / name, value_ranges=self.value_ranges) for name, split in absolute.items()
        }


def write_dataset(folder: Path, root: Path, train: SplitConfig, val: SplitConfig, annotations: Path | None = None) -> None:
    """Writes `folder/dataset.json`, which says that the dataset of these splits lies below `root`.

    annotations: the folder that the paths of annotation files start from; None for `root`. Paths inside `folder` are written
    relative to it, so that the folder can be moved; other paths are written as absolute ones.
    Raises DatasetError if a split names a file or folder that does not exist, or that lies outside of `root`.
    """
    roots = [path.resolve() for path in (root, annotations or root)]
    folder = folder.resolve()
    inside = [path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path) for path in roots]
    write_dataset_file(folder, DatasetFile(inside[0], inside[1], train, val))


def write_dataset_file(folder: Path, content: DatasetFile) -> None:
    """Writes `content` to `folder/dataset.json`. Raises DatasetError in the same cases as `write_dataset`."""
    content.splits(folder, str((folder / content.root).resolve()))
    (folder / NAME).write_text(json.dumps(asdict(content), indent=2) + "\n", encoding="utf-8")


def read_dataset(folder: Path) -> dict[str, Split]:
    """Returns the splits 'train' and 'val' of the dataset in `folder`.

    Raises DatasetError for a `dataset.json` that is missing or malformed, or names files or folders that do not exist.
    """
    return read_dataset_file(folder).splits(folder, str(folder / NAME))


def read_dataset_file(folder: Path) -> DatasetFile:
    """Returns the content of `folder/dataset.json`. Raises DatasetError if the file is missing or malformed."""
    path = folder / NAME
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{path}: expected a dataset, found no such file; the stages data and check write it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not valid JSON: {error}; run the stage that wrote it again") from None
    try:
        return build(DatasetFile, {"value_ranges": None} | content if isinstance(content, dict) else content, str(path))
    except ConfigError as error:
        raise DatasetError(str(error)) from None


def _located(root: Path, annotations: Path, name: str, split: SplitConfig, where: str) -> Split:
    paths: dict[str, Path | None] = {}
    for part, relative_path in asdict(split).items():
        field_name = f"{where}: {name}.{part}"
        base = annotations if part in ("instances", "panoptic") else root
        path = None if relative_path is None else below_root(base, relative_path, field_name)
        if path is not None and not (path.is_dir() if part in ("images", "panoptic_masks") else path.is_file()):
            raise DatasetError(f"{field_name}: expected {PARTS[part]}, found none at {path}")
        paths[part] = path
    images = paths.pop("images")
    assert images is not None  # SplitConfig requires it
    return Split(name, images, paths["instances"], paths["panoptic"], paths["panoptic_masks"])


def below_root(root: Path, name: str, where: str) -> Path:
    """Returns `root / name`. Raises DatasetError if `name` is not a relative path that stays below `root`.

    where: the file and field that the error names.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise DatasetError(f"{where}: expected a relative path without '..', found {name!r}")
    return root / path


def targets(split: Split) -> Literal["instances", "panoptic"]:
    """Returns which annotations of a split have all of its categories: panoptic if the split has panoptic annotations."""
    return "instances" if split.panoptic is None else "panoptic"
