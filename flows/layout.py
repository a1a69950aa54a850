"""A dataset folder as people have it, and the `data.folder` section that reads it: COCO's, YOLO's or Pascal VOC's layout."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from detr_core.data.dataset import DatasetError
from flows.coco_layout import coco_layout, split_entry
from flows.split_names import SPLITS


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
        kind, splits = "coco", coco_layout(folder).splits
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
            found[split] = split_entry(images, labels)
    if "train" not in found:
        raise DatasetError(f"{folder / 'data.yaml'}: train: expected a folder of images below {folder}, found none")
    return found


def _voc(folder: Path) -> dict[str, Any]:
    images = next((name for name in ("JPEGImages", "images", ".") if next(_pictures(folder / name), None)), None)
    if images is None:
        raise DatasetError(f"{folder}: expected images in JPEGImages, found none")
    lists = {split: f"ImageSets/Main/{split}.txt" for split in ("train", "val")}
    if all((folder / name).is_file() for name in lists.values()):
        return {split: split_entry(images, name) for split, name in lists.items()}
    return {"train": split_entry(images, "Annotations")}


def _pictures(folder: Path) -> Iterator[Path]:
    endings = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
    return islice((path for path in folder.glob("*") if path.suffix.lower() in endings), 1)


def _below(folder: Path, place: str) -> bool:
    return not Path(place).is_absolute() and ".." not in Path(place).parts
