"""`dataset.json`: the one file by which a later stage finds the images and annotations of a dataset folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from detr_core.config import ConfigError, build
from detr_core.data.config import SplitConfig

NAME = "dataset.json"
INDEX = "index"  # below the folder of a dataset.json


class DatasetError(ValueError):
    """A dataset that can't be used. The message names the file and the field, what was expected and what was found."""


@dataclass(frozen=True)
class Split:
    """Where one split of a dataset lies; all paths are absolute.

    images: folder of images. instances: `instances_*.json`. panoptic: `panoptic_*.json`, given exactly when panoptic_masks, the
    folder of its PNGs, is. At least one of instances and panoptic is there. index: a folder that may hold the annotation files as
    arrays (index.py).
    """

    name: str
    images: Path
    instances: Path | None
    panoptic: Path | None
    panoptic_masks: Path | None
    index: Path | None = None


@dataclass(frozen=True)
class _DatasetFile:
    root: str
    train: SplitConfig
    val: SplitConfig


def write_dataset(folder: Path, root: Path, train: SplitConfig, val: SplitConfig) -> None:
    """Writes `folder/dataset.json`, which says that the dataset of these splits lies below `root`.

    A root inside `folder` is written relative to it, so that the folder can be moved; any other one absolute.
    Raises DatasetError where a split names a file or folder that isn't there, or one outside of `root`.
    """
    root, folder = root.resolve(), folder.resolve()
    for name, split in (("train", train), ("val", val)):
        _located(root, name, split, str(root))
    inside = root.relative_to(folder).as_posix() if root.is_relative_to(folder) else str(root)
    content = asdict(_DatasetFile(inside, train, val))
    (folder / NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_dataset(folder: Path) -> dict[str, Split]:
    """The splits 'train' and 'val' of the dataset in `folder`.

    Raises DatasetError for a `dataset.json` that is missing or malformed, or names what isn't there.
    """
    path = folder / NAME
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{path}: expected a dataset, found no such file; run the data stage first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not valid JSON: {error}; run the data stage again") from None
    try:
        dataset = build(_DatasetFile, content, str(path))
    except ConfigError as error:
        raise DatasetError(str(error)) from None
    root = (folder / dataset.root).resolve()
    splits = {name: _located(root, name, split, str(path)) for name, split in (("train", dataset.train), ("val", dataset.val))}
    return {name: replace(split, index=folder / INDEX / name) for name, split in splits.items()}


def _located(root: Path, name: str, split: SplitConfig, where: str) -> Split:
    paths: dict[str, Path | None] = {}
    for field, below in asdict(split).items():
        place = f"{where}: {name}.{field}"
        path = None if below is None else below_root(root, below, place)
        if path is not None and field in ("images", "panoptic_masks") and not path.is_dir():
            raise DatasetError(f"{place}: expected a folder, found none at {path}")
        if path is not None and field in ("instances", "panoptic") and not path.is_file():
            raise DatasetError(f"{place}: expected a file, found none at {path}")
        paths[field] = path
    images = paths.pop("images")
    assert images is not None  # SplitConfig requires it
    return Split(name, images, paths["instances"], paths["panoptic"], paths["panoptic_masks"])


def below_root(root: Path, name: str, where: str) -> Path:
    """`root / name` for a relative `name` that stays below `root`; `where` (file and field) goes into the DatasetError else."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise DatasetError(f"{where}: expected a relative path without '..', found {name!r}")
    return root / path
