"""Finds the COCO annotation files of a folder, the split of each file, and the folder of its images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detr_core.data.splits import DatasetError
from detr_core.sources.formats.split_names import SPLITS, WORDS, split_named
from detr_core.sources.image_entries import image_file, present_name

DEPTH = 3  # annotation files are looked for in folders down to this depth
SAMPLE = 20  # to find the folder of the images, this many of the images that an annotation file lists are looked for
LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class AnnotationFile:
    """The facts about a COCO annotation file that `adopt` needs.

    split: 'train', 'val' or 'test', or '' if neither the file's name nor its folder's name mentions a split. images,
    annotations: how many of them the file lists. names: file names of its images. pngs: file names of some of its panoptic PNGs.
    """

    path: Path
    targets: Literal["instances", "panoptic"]
    split: str
    images: int
    annotations: int
    names: list[str]
    pngs: list[str]


@dataclass(frozen=True)
class CocoLayout:
    """The annotation files of a folder.

    splits: the existing ones of 'train', 'val' and 'test', as in the section `data.folder`. If there is a validation set, a test
    set without images is left out. files: the annotation files of each split. unused: the annotation files of no split.
    """

    splits: dict[str, dict[str, Any]]
    files: dict[str, list[AnnotationFile]]
    unused: list[AnnotationFile]


def coco_layout(folder: Path, candidates: Sequence[AnnotationFile]) -> CocoLayout:
    """Finds the layout of a folder with these COCO annotation files.

    Raises DatasetError if no file can be that of the train split, or if two files could be that of one split.
    """
    files_of: dict[tuple[str, str], AnnotationFile] = {}
    for key in dict.fromkeys((file.split, file.targets) for file in candidates):
        same = [file for file in candidates if (file.split, file.targets) == key]
        # Keypoints have the same boxes as the instances.
        files_of[key] = _only_file([file for file in same if "keypoints" not in file.path.name] or same)
    parts = {
        split: {targets: file for (file_split, targets), file in files_of.items() if file_split == split}
        for split in (*SPLITS, "")
    }
    unnamed = parts.pop("")
    parts["train"] = parts["train"] or unnamed
    if not parts["train"]:
        names = ", ".join(str(file.path.relative_to(folder)) for file in files_of.values())
        raise DatasetError(f"{folder}: expected an annotation file of a train split, found only {names}")
    files = {split: list(part.values()) for split, part in parts.items() if part}
    used = {file.path for file_split in files.values() for file in file_split}
    unused = [file for file in candidates if file.path not in used]
    splits = {}
    for split in files:
        try:
            splits[split] = _split(folder, parts[split])
        except DatasetError:
            if split != "test" or "val" not in files:
                raise  # if there is a validation set, the test set isn't used, and its images may be missing
    return CocoLayout(splits, files, unused)


def split_entry(
    images: str, instances: str | None, panoptic: str | None = None, panoptic_masks: str | None = None
) -> dict[str, Any]:
    """Returns the entry of one split in the section `data.folder`."""
    return {"images": images, "instances": instances, "panoptic": panoptic, "panoptic_masks": panoptic_masks}


def annotation_files(folder: Path) -> tuple[list[AnnotationFile], list[str]]:
    """Returns COCO's annotation files below the folder, and for each other JSON file the reason why it is not one.

    System files are ignored. Raises DatasetError if a file that belongs to the dataset can't be read.
    """
    files, refused = [], []
    for path in _json_files(folder):
        file = _described(path, folder)
        if isinstance(file, str):
            refused.append(f"{path.relative_to(folder)}: {file}")
        else:
            files.append(file)
    return files, refused


def coco_folders(folder: Path) -> list[Path]:
    """Lists the folders that seem to have COCO annotation files directly in them; the files are not parsed, which takes long."""
    return list(dict.fromkeys(path.parent for path in _json_files(folder) if _has_lists(path)))


def _json_files(folder: Path) -> Iterator[Path]:
    for subfolder in (folder, *_folders(folder, DEPTH)):
        for path in sorted(subfolder.iterdir()):
            # macOS makes files whose names begin with `._`; the annotation file of an export may be `.annotations.coco.json`.
            if path.suffix.lower() == ".json" and not path.name.startswith("._") and path.is_file():
                yield path


def _has_lists(path: Path) -> bool:
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return all(f'"{name}"'.encode() in text for name in LISTS)


def _described(path: Path, folder: Path) -> AnnotationFile | str:
    """Returns the annotation file, or the reason why it is not one.

    Raises DatasetError for a damaged file with the name of an annotation file.
    """
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        fault = "empty" if isinstance(error, ValueError) and not text.strip() else f"not valid JSON: {error}"
        if split_named(path.stem) or set(_words(path.stem)) & {"instances", "panoptic", "annotations", "coco"}:
            raise DatasetError(f"{path}: {fault}; correct the file, or move it out of the folder") from None
        return fault
    if not isinstance(content, dict) or len(set(LISTS) & set(content)) < 2:
        return "not in COCO's format"
    missing = [field for field in LISTS if field not in content]
    if missing:  # files with captions have no categories, and files with test images have no annotations
        return f"it has no list `{missing[0]}`"
    for field in LISTS:
        if not isinstance(content[field], list):
            raise DatasetError(f"{path}: {field}: expected a list, found {str(content[field])[:40]!r}")
    entries = [entry for entry in content["annotations"] if isinstance(entry, dict)]
    return AnnotationFile(
        path,
        "panoptic" if entries and "segments_info" in entries[0] else "instances",
        split_named(path.stem) or split_named(path.parent.relative_to(folder).as_posix()),
        len(content["images"]),
        len(content["annotations"]),
        _file_names(content["images"]),
        _sample(_file_names(content["annotations"])),
    )


def _words(text: str) -> list[str]:
    return text.lower().replace("-", "_").replace(".", "_").split("_")


def _file_names(entries: list[Any]) -> list[str]:
    return [entry["file_name"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("file_name"), str)]


def _sample(names: list[str]) -> list[str]:
    """Returns at most SAMPLE of the names, evenly spaced."""
    return names[:: max(1, len(names) // SAMPLE)][:SAMPLE]


def _split(folder: Path, part: dict[str, AnnotationFile]) -> dict[str, Any]:
    file = next(iter(part.values()))
    word = next((name for name in file.path.stem.split("_")[::-1] if name.startswith(WORDS)), "")
    likely = [f"images/{word}", word, f"{word}/images"] if word else []
    images = _folder_with(folder, file.path, "images", _sample(file.names), ["images", *likely, "."])
    panoptic, masks = part.get("panoptic"), None
    if panoptic is not None:
        png_folder = (panoptic.path.parent / panoptic.path.stem).relative_to(folder).as_posix()
        masks = _folder_with(
            folder, panoptic.path, "annotations", panoptic.pngs, [png_folder, "panoptic", f"annotations/{panoptic.path.stem}"]
        )
    paths = {targets: file.path.relative_to(folder).as_posix() for targets, file in part.items()}
    return split_entry(images, paths.get("instances"), paths.get("panoptic"), masks)


def _folder_with(folder: Path, file: Path, field: str, names: list[str], likely: list[str]) -> str:
    """Returns the folder below `folder` that holds most of the files with these names. The likely folders are tried first."""
    if not names:
        raise DatasetError(f"{file}: {field}: expected entries with a `file_name`, found none")
    other_folders = (path.relative_to(folder).as_posix() for path in [file.parent, *_folders(folder, DEPTH)])
    best, largest_count = "", 0
    for path_below in [*likely, *other_folders]:
        count = sum(image_file(folder / path_below, name) is not None for name in names)
        count = count or sum(present_name(folder / path_below, name) is not None for name in names)
        if count > largest_count:
            best, largest_count = path_below, count
        if largest_count == len(names):
            break
    if not largest_count:
        raise DatasetError(f"{file}: {field}.file_name: expected files below {folder}, found none such as {names[0]!r}")
    return best


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    try:
        inside: Iterable[Path] = sorted(folder.iterdir()) if depth else ()
    except OSError as error:
        raise DatasetError(f"{folder}: expected a folder that can be read: {error}") from None
    for path in inside:
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".") and path.name != "__MACOSX":
            yield path
            yield from _folders(path, depth - 1)


def _only_file(files: list[AnnotationFile]) -> AnnotationFile:
    if len(files) > 1:
        names = ", ".join(str(file.path) for file in files)
        raise DatasetError(
            f"expected one annotation file for each split, found several for one split: {names}; move all but one elsewhere"
        )
    return files[0]
