"""Finds Pascal VOC's XML files and images in a folder, and the split that its lists (`ImageSets/Main`) put each image into."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detr_core.config import build
from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError
from detr_core.sources.formats.coco_layout import split_entry
from detr_core.sources.formats.split_names import SPLITS, split_named
from detr_core.sources.formats.voc import has_images, missing_images, voc_images
from detr_core.sources.formats.voc_xml import is_voc_xml
from detr_core.sources.picture_files import is_foreign, missing_note, picture_files
from detr_core.wording import counted

DEPTH = 3  # XML files are looked for in folders down to this depth
IMAGES = ("jpegimages", "images", "imgs", "image")
MASKS = ("segmentationclass", "segmentationobject")  # the masks in these folders have the names of the images
LISTS = {name: split for split, names in SPLITS.items() for name in names} | {"trainval": "trainval", "default": "default"}


def voc_folders(folder: Path) -> list[Path]:
    """Lists the folders that have XML files of Pascal VOC directly in them."""
    return [place for place in (folder, *subfolders(folder, DEPTH)) if any(is_voc_xml(path) for path in _xml_files(place))]


def voc_layout(folder: Path, places: list[Path]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Returns the splits 'train' and 'val' as in the section `data.folder`, and notes for the user on how they were chosen.

    places: the folders of XML files. Raises DatasetError if it is not clear which images are for training.
    """
    if len(places) == 1 or (annotations := _annotations_above(places)) is None:
        splits, notes = _one_folder(folder, places[0]) if len(places) == 1 else (_folder_by_split(folder, places), [])
    else:
        splits, notes = _one_folder(folder, annotations)
    _require_apart(folder, splits)
    if "val" not in splits and "test" in splits:
        splits["val"] = splits.pop("test")
        notes.append(f"there is no validation set: the test set, {splits['val']['instances']}, is used for validation")
    elif "test" in splits:
        notes.append(f"the test set, {splits.pop('test')['instances']}, is used neither for training nor for validation")
    notes += [note for entry in splits.values() if (note := _without_xml(folder, entry))]
    if "val" not in splits:
        notes.append("there is no validation set: a share of the training images is used for validation")
    for name, entry in splits.items():
        missing, total = missing_images(folder, build(SplitConfig, entry, str(folder)))
        notes += missing_note(name, [f"{entry['images']}/{image}" for image in missing], total)
    return splits, notes


def _annotations_above(places: list[Path]) -> Path | None:
    """Returns the folder `Annotations` that all these folders are in; None without one, or if they are named after splits."""
    common = Path(os.path.commonpath(places))
    above = next((path for path in (common, *common.parents) if path.name.lower() == "annotations"), None)
    by_split = above is not None and all(split_named(place.relative_to(above).as_posix()) for place in places)
    return None if by_split else above


def _folder_by_split(folder: Path, places: list[Path]) -> dict[str, dict[str, Any]]:
    folders: dict[str, list[Path]] = {}
    for place in places:
        folders.setdefault(split_named(place.relative_to(folder).as_posix()), []).append(place)
    if "" in folders or "train" not in folders or any(len(split_folders) > 1 for split_folders in folders.values()):
        names = ", ".join(str(place.relative_to(folder)) for place in places)
        raise DatasetError(
            f"{folder}: expected XML files in one folder, or in a folder for each of train, val and test, found them in {names}"
        )
    return {
        split: split_entry(_images(folder, folders[split][0]), folders[split][0].relative_to(folder).as_posix())
        for split in SPLITS
        if split in folders
    }


def _one_folder(folder: Path, place: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    images = _images(folder, place)
    below = place.relative_to(folder).as_posix()
    sets = _child(place.parent, ("imagesets",)) if place != folder else None
    main = None if sets is None else _child(sets, ("main",)) or (sets if _lists(sets) else None)
    if sets is not None and main is None:
        names = ", ".join(sorted(path.name for path in sets.iterdir() if not is_foreign(path.name))[:5]) or "nothing"
        return {"train": split_entry(images, below)}, [
            f"{sets.relative_to(folder)} has no lists in a folder Main, only {names}: every image is used"
        ]
    lists = {} if main is None else _lists(main)
    if main is None or not lists:
        return {"train": split_entry(images, below)}, []
    list_of_kind: dict[str, Path] = {}
    for name, path in lists.items():
        kind = LISTS.get(name)
        if kind is not None:
            if kind in list_of_kind:
                raise DatasetError(f"{main}: expected one list for {kind}, found {list_of_kind[kind].name} and {path.name}")
            list_of_kind[kind] = path
    unused = [name for name in lists if name not in LISTS and name.rpartition("_")[2] not in LISTS]
    if not list_of_kind:
        raise DatasetError(
            f"{main}: expected lists called train, val, trainval or test, found {', '.join(sorted(lists)[:5])}; "
            "rename the list of the training images to train.txt"
        )
    notes = [f"{main.relative_to(folder)}: not used: {', '.join(f'{name}.txt' for name in unused[:5])}"] if unused else []
    return _by_lists(folder, images, list_of_kind, main, notes), notes


def _by_lists(
    folder: Path, images: str, list_of_kind: dict[str, Path], main: Path, notes: list[str]
) -> dict[str, dict[str, Any]]:
    list_of = {split: list_of_kind[split] for split in SPLITS if split in list_of_kind}
    if "train" not in list_of:
        train = list_of_kind.get("trainval") or list_of_kind.get("default")
        if train is None:
            raise DatasetError(
                f"{main}: expected a list train.txt or trainval.txt, found only "
                f"{', '.join(path.name for path in list_of_kind.values())}"
            )
        list_of["train"] = train
        if train is list_of_kind.get("trainval") and "val" in list_of:
            raise DatasetError(f"{main}: expected train.txt beside val.txt, found trainval.txt, which has the images of both")
    elif "trainval" in list_of_kind and "val" not in list_of:
        raise DatasetError(
            f"{main}: expected val.txt beside train.txt and trainval.txt, found none; write it, or remove one of the two"
        )
    elif "trainval" in list_of_kind:
        notes.append(f"{main.relative_to(folder)}: trainval.txt is not used, because train.txt and val.txt exist")
    return {split: split_entry(images, list_of[split].relative_to(folder).as_posix()) for split in SPLITS if split in list_of}


def _without_xml(folder: Path, entry: dict[str, Any]) -> str:
    if not (folder / entry["instances"]).is_dir():
        return ""  # a list says which images are used
    pictures = {os.path.splitext(name)[0] for name in picture_files(folder / entry["images"])}
    without_file = pictures - set(voc_images(folder, build(SplitConfig, entry, str(folder))))
    if not without_file or without_file == pictures:  # if no image has one, XML files name images by <filename>
        return ""
    predicate = "has no XML file in {}, and is not used" if len(without_file) == 1 else "have no XML file in {}, and are not used"
    return f"{entry['images']}: {len(without_file)} of {len(pictures)} images {predicate.format(entry['instances'])}"


def _require_apart(folder: Path, splits: dict[str, dict[str, Any]]) -> None:
    stems: dict[str, set[str]] = {}
    for name, entry in splits.items():
        try:
            stems[name] = set(voc_images(folder, build(SplitConfig, entry, str(folder))))
        except DatasetError:
            if name != "test":
                raise
    for split in ("val", "test"):
        shared = stems["train"] & stems.get(split, set())
        if shared and splits[split]["images"] == splits["train"]["images"]:
            lists = f"{splits['train']['instances']} and {splits[split]['instances']}"
            raise DatasetError(f"{folder}: {lists}: expected no image in both, found {len(shared)}, such as {min(shared)!r}")


def _images(folder: Path, place: Path) -> str:
    """Returns the folder of the images that belong to the XML files in `place`.

    It is JPEGImages (or a similar name) beside Annotations, with the same subfolder as `place`; else `place` itself, the folder
    above it, or the only other folder beside Annotations or directly below `folder` that has an image of an XML file.
    """
    parts = place.relative_to(folder).parts
    depth = next((number for number, part in enumerate(parts) if part.lower() == "annotations"), max(0, len(parts) - 1))
    above, inner = folder.joinpath(*parts[:depth]), parts[depth + 1 :]
    usual_folders = [beside.joinpath(*inner) for name in IMAGES if (beside := _child(above, (name,))) is not None]
    for images in [*usual_folders, place, above]:
        if has_images(images, place):
            return images.relative_to(folder).as_posix()
    for parent in dict.fromkeys([above, folder]):
        children = (child for child in sorted(parent.iterdir()) if child.is_dir() and child.name.lower() not in MASKS)
        folders = [child.joinpath(*inner) for child in children if has_images(child.joinpath(*inner), place)]
        if len(folders) == 1:
            return folders[0].relative_to(folder).as_posix()
        if folders:
            names = ", ".join(images.relative_to(folder).as_posix() for images in folders)
            raise DatasetError(
                f"{folder}: expected one folder with the images of the XML files in {place.relative_to(folder)}, found {names}; "
                "rename the right one to JPEGImages"
            )
    for images in usual_folders:
        if next(picture_files(images), None) is not None:
            return images.relative_to(folder).as_posix()
    raise DatasetError(_no_images(folder, place, above))


def _no_images(folder: Path, place: Path, above: Path) -> str:
    image_counts = Counter((folder / name).parent for name in picture_files(folder))
    examples = ", ".join(
        f"{path.relative_to(folder)} ({counted(number, 'image')})" for path, number in image_counts.most_common(5)
    )
    xml_file = next(_xml_files(place), place)
    return (
        f"{folder}: expected the images of the XML files, such as that of {xml_file.relative_to(folder)}, in "
        f"{(above / 'JPEGImages').relative_to(folder)} or in another folder beside {place.name}, found none of them; "
        f"folders with other images: {examples or 'none'}"
    )


def _lists(folder: Path) -> dict[str, Path]:
    return {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".txt" and path.is_file() and not is_foreign(path.name)
    }


def _child(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() in names and path.is_dir()), None)


def _xml_files(folder: Path) -> Iterator[Path]:
    return (
        folder / name
        for name in sorted(os.listdir(folder))
        if name.lower().endswith(".xml") and not is_foreign(name) and (folder / name).is_file()
    )


def subfolders(folder: Path, depth: int) -> Iterator[Path]:
    """Yields the folders below this one down to a depth, without links and folders of the operating system."""
    for path in sorted(folder.iterdir()) if depth else ():
        if path.is_dir() and not path.is_symlink() and not is_foreign(path.name):
            yield path
            yield from subfolders(path, depth - 1)
