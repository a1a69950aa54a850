"""Reads the layout of a YOLO dataset from its description (`data.yaml`), and refuses a key that cannot be followed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from detr_core.config import build
from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError
from detr_core.sources.formats.coco_layout import split_entry
from detr_core.sources.formats.split_names import SPLITS
from detr_core.sources.formats.yolo import YoloSet, labels_of, split_pictures
from detr_core.sources.picture_files import below, is_foreign
from detr_core.wording import counted

NAME = "data.yaml"
KEYS = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}


def yolo_description(folder: Path) -> Path | None:
    """Returns the file that describes a YOLO dataset; None if there is none.

    It is `data.yaml`, or the only other YAML file with the same keys. Raises DatasetError if several files could be it.
    """
    if (folder / NAME).is_file():
        return folder / NAME
    candidates = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".yaml", ".yml") and path.is_file() and not is_foreign(path.name):
            try:
                content = read_description(path)
            except DatasetError:
                continue
            if ("names" in content or "nc" in content) and any(key in content for keys in KEYS.values() for key in keys):
                candidates.append(path)
    if len(candidates) > 1:
        names = ", ".join(map(str, candidates))
        raise DatasetError(f"expected one description of a YOLO dataset, found {names}; keep one, or rename one to {NAME}")
    return candidates[0] if candidates else None


def yolo_set(folder: Path) -> YoloSet:
    """Reads the description of the YOLO dataset in the folder. Raises DatasetError, which names the file and the key."""
    return _described(folder)[0]


def yolo_layout(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Returns the splits 'train' and 'val' as in the section `data.folder`, and notes for the user on how they were chosen.

    Raises DatasetError, which names file and key, for a description that cannot be followed.
    """
    yolo, notes = _described(folder)
    test = yolo.places.get("test")
    splits = {name: _split(yolo, name, folder) for name in ("train", "val") if name in yolo.places}
    if "val" in splits and (note := _in_both(folder, yolo, splits)):
        notes.append(note)
    if test is not None:
        _require_apart(folder, yolo, splits)
        notes.append(f"{yolo.file}: test: {', '.join(test)} is used neither for training nor for validation")
    return splits, notes


def _described(folder: Path) -> tuple[YoloSet, list[str]]:
    path = yolo_description(folder)
    if path is None:
        raise DatasetError(f"{folder}: expected the description of a YOLO dataset, such as {NAME}, found none")
    content = read_description(path)
    names = _names(content, path)
    base, missing = _base(content, folder, path)
    note = f"{path.name}: path: {missing} was not found; paths are read relative to the folder of {path.name}"
    notes = [note] if missing else []
    places: dict[str, tuple[str, ...]] = {}
    for split, keys in reversed(KEYS.items()):  # test comes first: if it is given, no usual folder is taken for a missing `val`
        key = next((key for key in keys if content.get(key) is not None), None)
        if key is not None:
            try:
                split_places = [_place(value, key, base, folder, path, missing) for value in _list(content[key], key, path)]
                places[split] = tuple(dict.fromkeys(split_places))
            except DatasetError:
                if split != "test":
                    raise
                notes.append(f"{path.name}: test: {str(content[key])[:80]} was not found, and is not used")
        elif (place := _usual_place(folder, split)) and not (split == "val" and content.get("test") is not None):
            places[split] = (place,)
            if split != "test":
                notes.append(f"{path.name} has no key `{split}`: its images are taken from {place}")
    if "train" not in places:
        raise DatasetError(f"{path}: train: expected folders or lists of images below {folder}, found none")
    if "val" not in places and "test" in places:
        places["val"] = places.pop("test")
        notes.append(f"{path.name} has no validation set: its test set, {', '.join(places['val'])}, is used for validation")
    elif "val" not in places:
        notes.append(f"{path.name} has no validation set: a share of the training images is used for validation")
    return YoloSet(path.name, names, _keypoints(content, path), base, places), notes


def _split(yolo: YoloSet, name: str, folder: Path) -> dict[str, Any]:
    """Returns a split's entry in `data.folder`: its folders if it has a single folder of images, else the description's file."""
    places = yolo.places[name]
    if len(places) == 1 and (folder / places[0]).is_dir():
        labels = labels_of(f"{places[0]}/x").rpartition("/")[0]
        if labels_of(f"{places[0]}/a/x") == f"{labels}/a/x.txt":
            return split_entry(places[0], labels)
    return split_entry(".", yolo.file)


def _in_both(folder: Path, yolo: YoloSet, splits: Mapping[str, dict[str, Any]]) -> str:
    """Returns a note if images are listed for training and for validation, as in datasets that only show the format."""
    files = [
        {picture.file for picture in split_pictures(folder, name, build(SplitConfig, entry, yolo.file), yolo)}
        for name, entry in splits.items()
    ]
    shared = len(files[0] & files[1])
    if not shared:
        return ""
    return (
        f"{yolo.file}: train and val have {counted(shared, 'image')} in common, and the check stops at such a dataset; set "
        "`val: null` and `val_share: 0.2` in the profile's `data.folder` to validate on a share of the training images"
    )


def _require_apart(folder: Path, yolo: YoloSet, splits: Mapping[str, dict[str, Any]]) -> None:
    test = split_entry(".", yolo.file)
    files = {}
    for name, entry in {**splits, "test": test}.items():
        config = build(SplitConfig, entry, yolo.file)
        try:
            files[name] = {picture.file for picture in split_pictures(folder, name, config, yolo)}
        except DatasetError:
            if name != "test":
                raise
            return  # a test set without images has no image in common with another split
    shared = files["train"] & files["test"]
    if shared:
        first = min(shared).relative_to(folder)
        raise DatasetError(
            f"{folder / yolo.file}: train and test: expected no image in both, found {len(shared)}, such as {first}; "
            "remove the images from one of the two"
        )


def read_description(path: Path) -> dict[str, Any]:
    """Returns the content of a YAML file. Raises DatasetError if it is not a mapping."""
    try:
        content = yaml.safe_load(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise DatasetError(f"{path}: expected YOLO's description of a dataset: {error}") from None
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path}: expected YOLO's description of a dataset, a mapping with train, val and names, "
            f"found {type(content).__name__}"
        )
    return content


def _names(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    names, number = content.get("names"), content.get("nc")
    if names is None and type(number) is int and 0 < number <= 100_000:
        return tuple(f"class_{index}" for index in range(number))
    by_number: dict[Any, Any] | None = None
    if isinstance(names, dict):
        by_number = {
            int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 9 else key: name
            for key, name in names.items()
        }
    elif isinstance(names, list):
        by_number = dict(enumerate(names))
    if not by_number or any(type(key) is not int or not 0 <= key < len(by_number) for key in by_number):
        raise DatasetError(
            f"{path}: names: expected a list of class names, or a mapping from 0, 1, 2, ... to names, found {str(names)[:40]}"
        )
    for name in by_number.values():
        if not isinstance(name, (str, int, float, bool)) or name == "":
            raise DatasetError(f"{path}: names: expected a name for each class, found {type(name).__name__}")
    if number is not None and number != len(by_number):
        raise DatasetError(f"{path}: nc: expected {len(by_number)}, as many as there are names, found {str(number)[:40]}")
    return tuple(str(by_number[index]) for index in range(len(by_number)))


def _keypoints(content: dict[str, Any], path: Path) -> tuple[int, int] | None:
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or any(type(side) is not int for side in shape)
        or not 0 < shape[0] < 10_000
        or shape[1] not in (2, 3)
    ):
        raise DatasetError(f"{path}: kpt_shape: expected the number of keypoints and 2 or 3 dimensions, found {str(shape)[:40]}")
    return shape[0], shape[1]


def _base(content: dict[str, Any], folder: Path, path: Path) -> tuple[str, str]:
    """Returns the folder, below `folder`, that paths are relative to, and the value of `path` if that folder is missing."""
    value = content.get("path")
    if value is None or value == "":
        return ".", ""
    if not isinstance(value, str) or "\0" in value:
        raise DatasetError(f"{path}: path: expected the path of a folder, found {str(value)[:80]!r}")
    place = os.path.normpath(os.path.join(folder, value.replace("\\", "/")))
    if not os.path.isdir(place):
        return ".", value
    return _inside(place, value, "path", folder, path), ""


def _place(value: Any, key: str, base: str, folder: Path, path: Path, missing: str) -> str:
    """Returns the path, below `folder`, of a folder or list of images that a key of the description names.

    missing: the value of the description's key `path` if no such folder exists, else ''.
    """
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise DatasetError(f"{path}: {key}: expected folders or lists of images, found {str(value)[:80]!r}")
    text = value.strip().replace("\\", "/")
    place = os.path.normpath(os.path.join(folder, base, text))
    if os.path.exists(place):
        return _inside(place, value, key, folder, path)
    while text.startswith("../"):  # exporters write `../train/images` for a working directory inside of the folder
        text = text.removeprefix("../")
    shorter = os.path.normpath(os.path.join(folder, base, text))
    if text != value and not os.path.isabs(text) and os.path.exists(shorter):
        return _inside(shorter, value, key, folder, path)
    if missing and not _is_absolute(text):
        raise DatasetError(
            f"{path}: path: expected the folder of the dataset, found no folder at {_quoted(missing)}; {key}: "
            f"{_quoted(value)} is not in the folder of {path.name} either; correct `path`, or remove it and write the other "
            f"paths relative to the folder of {path.name}"
        )
    raise DatasetError(
        f"{path}: {key}: expected a folder or a list of images below {folder}, found none at {_quoted(value)}; "
        + (
            f"write the path relative to the folder of {path.name}"
            if _is_absolute(text)
            else "correct the key, or remove it if there is no such split"
        )
    )


def _is_absolute(path: str) -> bool:
    """Returns whether a path with slashes is absolute on this or any other system."""
    return os.path.isabs(path) or PureWindowsPath(path).is_absolute()


def _quoted(path: str) -> str:
    return repr(path[:80]).replace("\\\\", "\\")  # with single backslashes, as the user has written them


def _inside(place: str, value: str, key: str, folder: Path, path: Path) -> str:
    inside = below(folder, place)
    if inside is None:
        inside = below(Path(os.path.realpath(folder)), os.path.realpath(place)) if os.path.isabs(value) else None
    if inside is None:
        raise DatasetError(f"{path}: {key}: expected a path inside {folder}, found {value!r}, which is {place}")
    if key != "path" and not os.path.isdir(place) and not place.lower().endswith(".txt"):
        raise DatasetError(f"{path}: {key}: expected a folder or a .txt list of images, found the file {value!r}")
    return inside


def _list(value: Any, key: str, path: Path) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise DatasetError(f"{path}: {key}: expected folders or lists of images, found an empty list")
    return items


def _usual_place(folder: Path, split: str) -> str | None:
    """Returns the folder where exporters put a split that the description does not mention; None if there is no such folder."""
    names = SPLITS[split]
    places = [f"{first}/{second}" for name in names for first, second in (("images", name), (name, "images"))]
    return next((place for place in places if (folder / place).is_dir()), None)
