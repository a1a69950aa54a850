"""Which files of a folder are COCO's annotation files, of which split each is, and where its images are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detr_core.data.dataset import DatasetError
from detr_core.data.image_entries import image_file, present_name
from flows.no_dataset import no_dataset
from flows.split_names import SPLITS, WORDS, split_named

DEPTH = 3  # annotation files lie at most so many folders deep
SAMPLE = 20  # so many files that an annotation file names are looked for, to find the folder that they are in
LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class AnnotationFile:
    """What adopting a folder needs to know of one of its COCO annotation files.

    split: 'train', 'val', 'test', or '' where neither its name nor its folder says it. images, annotations: how many it lists.
    names: of its images. pngs: of some of its panoptic PNGs.
    """

    path: Path
    source: Literal["instances", "panoptic"]
    split: str
    images: int
    annotations: int
    names: list[str]
    pngs: list[str]


@dataclass(frozen=True)
class CocoLayout:
    """What the annotation files of a folder are.

    splits: 'train', 'val' and 'test', those that are there, as in the section `data.folder`; without a test set whose images
    can't be found, beside a validation set. files: of each split that is there. unused: the annotation files of no split.
    """

    splits: dict[str, dict[str, Any]]
    files: dict[str, list[AnnotationFile]]
    unused: list[AnnotationFile]


def coco_layout(folder: Path) -> CocoLayout:
    """The layout of a folder with COCO annotation files. Files of the system, empty ones and other JSON are passed over.

    Raises DatasetError where no file can be train's, where one that should be of the set can't be read, and where two files
    could be the same split's.
    """
    found, others = _annotation_files(folder)
    if not found:
        raise DatasetError(no_dataset(folder, others))
    chosen: dict[tuple[str, str], AnnotationFile] = {}
    for key in dict.fromkeys((file.split, file.source) for file in found):
        same = [file for file in found if (file.split, file.source) == key]
        # Keypoints have the same boxes as the instances.
        chosen[key] = _one([file for file in same if "keypoints" not in file.path.name] or same)
    parts = {split: {source: file for (own, source), file in chosen.items() if own == split} for split in (*SPLITS, "")}
    unnamed = parts.pop("")
    parts["train"] = parts["train"] or unnamed
    if not parts["train"]:
        names = ", ".join(str(file.path.relative_to(folder)) for file in chosen.values())
        raise DatasetError(f"{folder}: expected annotations of a train split, found only {names}")
    files = {split: list(part.values()) for split, part in parts.items() if part}
    used = {file.path for own in files.values() for file in own}
    unused = [file for file in found if file.path not in used]
    splits = {}
    for split in files:
        try:
            splits[split] = _split(folder, parts[split])
        except DatasetError:
            if split != "test" or "val" not in files:
                raise  # a test set beside a validation set isn't used, and may be without its images
    return CocoLayout(splits, files, unused)


def split_entry(
    images: str, instances: str | None, panoptic: str | None = None, panoptic_masks: str | None = None
) -> dict[str, Any]:
    """One split as the section `data.folder` has it."""
    return {"images": images, "instances": instances, "panoptic": panoptic, "panoptic_masks": panoptic_masks}


def _annotation_files(folder: Path) -> tuple[list[AnnotationFile], list[str]]:
    """COCO's annotation files below the folder, and why other JSON files are none of them."""
    found, others = [], []
    for place in (folder, *_folders(folder, DEPTH)):
        for path in sorted(place.iterdir()):
            # A Mac's own files begin with `._`; some exports are called .annotations.coco.json.
            if path.suffix.lower() != ".json" or path.name.startswith("._") or not path.is_file():
                continue
            file = _described(path, folder)
            if isinstance(file, str):
                others.append(f"{path.relative_to(folder)}: {file}")
            else:
                found.append(file)
    return found, others


def _described(path: Path, folder: Path) -> AnnotationFile | str:
    """The annotation file, or why it is none. Raises DatasetError for a damaged file whose name says that it is of the set."""
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        fault = "empty" if isinstance(error, ValueError) and not text.strip() else f"not valid JSON: {error}"
        if split_named(path.stem) or set(_words(path.stem)) & {"instances", "panoptic", "annotations", "coco"}:
            raise DatasetError(f"{path}: {fault}; mend the file, or move it out of the folder") from None
        return fault
    if not isinstance(content, dict) or len(set(LISTS) & set(content)) < 2:
        return "not COCO's format"
    missing = [field for field in LISTS if field not in content]
    if missing:  # captions have no categories, the lists of images to test on have no annotations
        return f"no list `{missing[0]}`"
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
    """Some of the names, from the first to the last."""
    return names[:: max(1, len(names) // SAMPLE)][:SAMPLE]


def _split(folder: Path, part: dict[str, AnnotationFile]) -> dict[str, Any]:
    file = next(iter(part.values()))
    word = next((name for name in file.path.stem.split("_")[::-1] if name.startswith(WORDS)), "")
    of_split = [f"images/{word}", word, f"{word}/images"] if word else []
    images = _holding(folder, file.path, "images", _sample(file.names), ["images", *of_split, "."])
    panoptic, masks = part.get("panoptic"), None
    if panoptic is not None:
        beside = (panoptic.path.parent / panoptic.path.stem).relative_to(folder).as_posix()
        masks = _holding(
            folder, panoptic.path, "annotations", panoptic.pngs, [beside, "panoptic", f"annotations/{panoptic.path.stem}"]
        )
    below = {source: own.path.relative_to(folder).as_posix() for source, own in part.items()}
    return split_entry(images, below.get("instances"), below.get("panoptic"), masks)


def _holding(folder: Path, file: Path, field: str, names: list[str], likely: list[str]) -> str:
    """The folder below `folder` in which most of the files that an annotation file names are: a likely one, or any other."""
    if not names:
        raise DatasetError(f"{file}: {field}: expected entries with a text `file_name`, found none")
    others = (path.relative_to(folder).as_posix() for path in [file.parent, *_folders(folder, DEPTH)])
    best, most = "", 0
    for place in [*likely, *others]:
        there = sum(image_file(folder / place, name) is not None for name in names)
        there = there or sum(present_name(folder / place, name) is not None for name in names)
        if there > most:
            best, most = place, there
        if most == len(names):
            break
    if not most:
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


def _one(files: list[AnnotationFile]) -> AnnotationFile:
    if len(files) > 1:
        listed = ", ".join(str(file.path) for file in files)
        raise DatasetError(f"expected one annotation file a split, found {listed}")
    return files[0]
