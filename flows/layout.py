"""A dataset folder as people have it, and the `data.folder` section that reads it: COCO's, YOLO's or Pascal VOC's layout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from detr_core.data.dataset import DatasetError

# A test set is validated on where there is no validation set, else kept for the end.
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
WORDS = tuple(word for words in SPLITS.values() for word in words)
DEPTH = 3  # annotation files lie at most so many folders deep


def find_layout(folder: Path, share: float) -> dict[str, Any]:
    """The content of `data.folder` for this folder, except for `root`.

    share: of train's images for val, where the folder has no validation split.
    Raises DatasetError for a folder that is none of the three, and one in which it isn't clear what is what: it names what was
    found, for the profile to be written by hand.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected a dataset folder, found none")
    if (folder / "data.yaml").is_file():
        kind, splits = "yolo", _yolo(folder)
    elif next((folder / "Annotations").glob("*.xml"), None) is not None:
        kind, splits = "voc", _voc(folder)
    else:
        kind, splits = "coco", _coco(folder)
    val = splits.get("val") or splits.get("test")
    return {"format": kind, "train": splits["train"], "val": val, "val_share": None if val else share}


def yolo_names(root: Path) -> list[str]:
    """The class names in YOLO's `data.yaml`, in order. Raises DatasetError where there are none."""
    names = _yolo_file(root).get("names")
    if isinstance(names, dict) and names and sorted(names) == list(range(len(names))):
        return [str(names[number]) for number in range(len(names))]
    if isinstance(names, list) and names:
        return [str(name) for name in names]
    raise DatasetError(f"{root / 'data.yaml'}: names: expected a list of class names, or numbers from 0 with names")


def _yolo_file(root: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load((root / "data.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DatasetError(f"{root / 'data.yaml'}: expected YOLO's description of a dataset: {error}") from None
    return content if isinstance(content, dict) else {}


def _yolo(folder: Path) -> dict[str, Any]:
    yolo_names(folder)
    told = _yolo_file(folder)
    found = {}
    for split, names in SPLITS.items():
        written = told.get(split)
        # `../train/images` is below the folder all the same: exporters write it for another working directory.
        wanted = [written.removeprefix("../").removeprefix("./")] if isinstance(written, str) else []
        wanted += [f"{first}/{second}" for name in names for first, second in (("images", name), (name, "images"))]
        images = next((place for place in wanted if _below(folder, place) and (folder / place).is_dir()), None)
        if images is not None:
            labels = "/".join("labels" if part == "images" else part for part in Path(images).parts)
            found[split] = _split(images, labels)
    if "train" not in found:
        raise DatasetError(f"{folder / 'data.yaml'}: train: expected a folder of images below {folder}, found none")
    return found


def _voc(folder: Path) -> dict[str, Any]:
    images = next((name for name in ("JPEGImages", "images", ".") if next(_pictures(folder / name), None)), None)
    if images is None:
        raise DatasetError(f"{folder}: expected images in JPEGImages, found none")
    lists = {split: f"ImageSets/Main/{split}.txt" for split in ("train", "val")}
    if all((folder / name).is_file() for name in lists.values()):
        return {split: _split(images, name) for split, name in lists.items()}
    return {"train": _split(images, "Annotations")}


def _coco(folder: Path) -> dict[str, Any]:
    files: dict[tuple[str, str], list[Path]] = {}
    for file in sorted(_annotation_files(folder)):
        content = json.loads(file.read_bytes())
        # Captions have no categories; keypoints have them, and the same boxes as the instances.
        if isinstance(content, dict) and all(
            isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
        ):
            source = "panoptic" if any("segments_info" in entry for entry in content["annotations"][:1]) else "instances"
            files.setdefault((_split_of(file, folder), source), []).append(file)
    chosen = {key: _one([file for file in found if "keypoints" not in file.name] or found) for key, found in files.items()}
    if not chosen:
        raise DatasetError(
            f"{folder}: expected COCO's annotation files, YOLO's data.yaml or Pascal VOC's Annotations, found none"
        )
    unnamed = {source: file for (split, source), file in chosen.items() if split == ""}
    parts = {split: {source: file for (own, source), file in chosen.items() if own == split} for split in SPLITS}
    parts["train"] = parts["train"] or unnamed
    if not parts["train"]:
        raise DatasetError(f"{folder}: expected annotations of a train split, found only {_names(chosen.values(), folder)}")
    return {split: _coco_split(folder, part) for split, part in parts.items() if part}


def _coco_split(folder: Path, part: dict[str, Path]) -> dict[str, Any]:
    file = next(iter(part.values()))
    names = [str(image.get("file_name")) for image in json.loads(file.read_bytes())["images"][:5]]
    split = next((name for name in file.stem.split("_")[::-1] if name.startswith(WORDS)), "")
    images = _holding(folder, file, names, ["images", f"images/{split}", split, f"{split}/images", "."])
    panoptic = part.get("panoptic")
    masks = None
    if panoptic is not None:
        pngs = [str(entry.get("file_name")) for entry in json.loads(panoptic.read_bytes())["annotations"][:5]]
        beside = (panoptic.parent / panoptic.stem).relative_to(folder).as_posix()
        masks = _holding(folder, panoptic, pngs, [beside, "panoptic", f"annotations/{panoptic.stem}"])
    below = {source: path.relative_to(folder).as_posix() for source, path in part.items()}
    return _split(images, below.get("instances"), below.get("panoptic"), masks)


def _holding(folder: Path, file: Path, names: list[str], likely: list[str]) -> str:
    """The folder below `folder` in which most of the files that an annotation file names are: a likely one, or any other."""
    others = (path.relative_to(folder).as_posix() for path in [file.parent, *_folders(folder, DEPTH)])
    best, most = "", 0
    for place in [*likely, *others]:
        there = sum((folder / place / name).is_file() for name in names if _below(folder, name))
        if there > most:
            best, most = place, there
        if most == len(names):
            break
    if not most:
        raise DatasetError(f"{file}: file_name: expected files below {folder}, found none such as {names[:1]}")
    return best


def _annotation_files(folder: Path) -> Iterator[Path]:
    for place in (folder, *_folders(folder, DEPTH)):
        yield from (path for path in place.glob("*.json") if path.is_file())


def _folders(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if depth else ():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            yield path
            yield from _folders(path, depth - 1)


def _split_of(file: Path, folder: Path) -> str:
    """Which split a file's name, or else its folder's, says it is of: 'train', 'val', or '' where they don't say."""
    for text in (file.stem, file.parent.relative_to(folder).as_posix()):
        words = text.lower().replace("-", "_").replace("/", "_").replace(".", "_").split("_")
        for split, names in SPLITS.items():
            if any(word.rstrip("0123456789") in names for word in words):
                return split
    return ""


def _one(files: list[Path]) -> Path:
    if len(files) > 1:
        raise DatasetError(f"expected one annotation file a split, found {', '.join(map(str, files))}")
    return files[0]


def _names(files: Any, folder: Path) -> str:
    return ", ".join(str(file.relative_to(folder)) for file in files)


def _pictures(folder: Path) -> Iterator[Path]:
    endings = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
    return islice((path for path in folder.glob("*") if path.suffix.lower() in endings), 1)


def _below(folder: Path, place: str) -> bool:
    return not Path(place).is_absolute() and ".." not in Path(place).parts


def _split(images: str, instances: str | None, panoptic: str | None = None, panoptic_masks: str | None = None) -> dict[str, Any]:
    return {"images": images, "instances": instances, "panoptic": panoptic, "panoptic_masks": panoptic_masks}
