"""Writes the error message for a folder without a dataset that `adopt` can read: what the folder holds, and what to do."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from PIL import Image

from detr_core.data.splits import DatasetError
from detr_core.sources.formats.spec import FORMATS
from detr_core.sources.formats.split_names import SPLITS, split_named
from detr_core.sources.formats.yolo_rows import BOX
from detr_core.sources.picture_files import is_foreign, read_lines
from detr_core.wording import counted
from flows.new_profile.yolo_layout import KEYS, read_description, yolo_description

MOST_FILES = 20_000  # at most this many files are looked at, because the folder may be a whole disk
DESCRIPTION = "data.yaml"
CLASSES = ("_darknet.labels", "classes.txt", "obj.names", "labels.txt")  # files in which exporters list the names of classes
SHOWN = 20


def no_dataset(folder: Path, refused: Sequence[str]) -> str:
    """Returns the message for a folder without a dataset. others: its JSON files, and why they are not annotation files."""
    *first, last = ["COCO's annotation files", f"YOLO's {DESCRIPTION}", *(kind.files for kind in FORMATS.values())]
    expected = f"{folder}: expected {', '.join(first)} or {last}, found none"
    examples = f" ({'; '.join(refused[:3])})" if refused else ""
    files = _files(folder)
    advice = _another_folder(folder, files) or _without_names(folder, files) or _description(folder, files) or _contents(files)
    return f"{expected}{examples}; {advice}"


def _files(folder: Path) -> list[str]:
    """Lists the files in the folder and below it, relative to the folder."""
    return sorted(os.path.relpath(path, folder).replace(os.sep, "/") for path in islice(_paths_below(folder), MOST_FILES))


def _paths_below(folder: Path) -> Iterator[str]:
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_foreign(name))
        yield from (os.path.join(base, name) for name in names if not is_foreign(name))


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in Image.registered_extensions()


def _has_rows(path: Path) -> bool:
    """Returns whether the first line of a text file is a row of YOLO's labels: a class and at least four coordinates."""
    try:
        with path.open(encoding="utf-8") as file:
            columns = [float(column) for column in file.readline(10_000).split()]
    except (OSError, ValueError):
        return False
    return len(columns) >= BOX and columns[0].is_integer()


def _another_folder(folder: Path, files: Sequence[str]) -> str:
    candidates = dict.fromkeys(path.parent for path in _yaml_files(folder, files))
    for candidate in [*candidates, *list(folder.parents)[:2]]:
        try:
            description = yolo_description(candidate)
        except (DatasetError, OSError):
            continue
        if description is not None:
            return f"{description} describes a YOLO dataset: pass its folder, {candidate}"
    return ""


def _without_names(folder: Path, files: Sequence[str]) -> str:
    """Returns advice on the YAML files that have the keys of YOLO's description of a dataset, but lack the class names."""
    advice = []
    for path in _yaml_files(folder, files):
        try:
            content = read_description(path)
        except DatasetError:
            continue
        splits = [key for keys in KEYS.values() for key in keys if isinstance(content.get(key), (str, list))]
        if splits and "names" not in content:
            keys_present = ", ".join(key for key in content if key == "path" or key in splits)
            similar = get_close_matches("names", [key for key in content if isinstance(key, str)], 1)
            advice.append(
                f"{path} has YOLO's keys {keys_present}, but not `names`{f' (it has `{similar[0]}`)' if similar else ''}"
            )
    return f"{'; '.join(advice)}: list the names of the classes under `names`" if advice else ""


def _yaml_files(folder: Path, files: Sequence[str]) -> list[Path]:
    return [folder / name for name in files if name.lower().endswith((".yaml", ".yml"))]


def _description(folder: Path, files: Sequence[str]) -> str:
    """Returns advice on writing a data.yaml if the folder has YOLO's label files without one, else an empty text."""
    rows = next((name for name in files if name.endswith(".txt") and _has_rows(folder / name)), None)
    if rows is None:
        return ""
    folders_of_split: dict[str, list[str]] = {}
    for images in sorted({name.rpartition("/")[0] or "." for name in files if _is_picture(name)}):
        folders_of_split.setdefault(split_named(images), []).append(images)
    if "train" not in folders_of_split:
        folders_of_split["train"] = folders_of_split.get("", ["..."])
    keys = [f"`{split}: {_as_yaml_list(folders_of_split[split])}`" for split in SPLITS if split in folders_of_split]
    class_list = next((name for name in files if name.rpartition("/")[2] in CLASSES and name != rows), None)
    classes, origin = (["..."], "") if class_list is None else (_class_names(folder / class_list), f" (from {class_list})")
    keys.append(f"`names: {json.dumps(classes, ensure_ascii=False)}`{origin}")
    return (
        f"{rows} has the rows of a YOLO label file, but {DESCRIPTION}, which names the classes, is missing: "
        f"write {folder / DESCRIPTION} with the lines {', '.join(keys)}"
    )


def _class_names(path: Path) -> list[str]:
    try:
        return read_lines(path)[:SHOWN]
    except DatasetError:
        return ["..."]


def _as_yaml_list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else json.dumps(names, ensure_ascii=False)


def _contents(files: Sequence[str]) -> str:
    if not files:
        return "the folder has no files"
    endings = Counter(os.path.splitext(name)[1].lower() or "without an ending" for name in files)
    examples = ", ".join(f"{number:,} {ending}" for ending, number in endings.most_common(5))
    return f"the folder has {counted(len(files), 'file')}: {examples}"
