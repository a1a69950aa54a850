"""Prepares a dataset folder that a profile names. Images are read in place; annotation files are added where they are needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from detr_core.data.config import SplitConfig
from detr_core.data.fields import read_content
from detr_core.data.splits import DatasetError, below_root, write_dataset
from detr_core.sources.account import Account
from detr_core.sources.config import FolderConfig
from detr_core.sources.formats.spec import FORMATS
from detr_core.sources.formats.yolo import YoloSet, read_yolo
from detr_core.sources.image_entries import completed, image_file
from detr_core.sources.split import id_in, parted, same_content, stratified

Contents = dict[str, dict[str, Any]]  # 'instances', 'panoptic' -> the content of that annotation file


def write_folder_dataset(config: FolderConfig, root: Path, seed: int, yolo: YoloSet | None, folder: Path) -> None:
    """Writes `folder`/dataset.json, which points to the dataset below `root`; no image is copied.

    If the dataset has no validation split, annotations in another format than COCO's, or images without a size, new annotation
    files are written to `folder`/annotations/: `instances_train.json`, `panoptic_val.json` and so on. They contain every image
    and annotation that was supplied, even broken ones, because the data check decides what is left out.
    seed: the seed of the division into train and val. yolo: the description of a YOLO dataset; None for other formats.
    Raises DatasetError, which names the file, for a folder without such a dataset.
    """
    if config.format == "coco" and config.val is not None and not _needs_own_files(config.train, config.val, root):
        write_dataset(folder, root, config.train, config.val)
        return
    contents = _contents(config, root, yolo)
    if config.val is None:
        assert config.val_share is not None  # FolderConfig requires it
        contents |= _divided(contents["train"], config.val_share, seed, below_root(root, config.train.images, "train.images"))
    splits = {"train": config.train, "val": config.val or config.train}
    (folder / "annotations").mkdir()
    for name, kinds in contents.items():
        for kind, content in kinds.items():
            file = f"annotations/{kind}_{name}.json"
            (folder / file).write_text(json.dumps(content), encoding="utf-8")
            splits[name] = replace(splits[name], **{kind: file})
    write_dataset(folder, root, splits["train"], splits["val"], annotations=folder)


def _contents(config: FolderConfig, root: Path, yolo: YoloSet | None) -> dict[str, Contents]:
    """Returns the annotation contents of 'train', and of 'val' if the folder has that split."""
    splits = {"train": config.train} | ({} if config.val is None else {"val": config.val})
    if config.format == "coco":
        return {
            name: {kind: _completed_file(file, root, split)[0] for kind, file in _coco_files(split, root).items()}
            for name, split in splits.items()
        }
    if config.format == "yolo":
        if yolo is None:
            raise DatasetError(f"{root}: expected the description of a YOLO dataset, such as data.yaml, found none")
        content_of_split = read_yolo(root, splits, yolo, config.labels)
    else:
        content_of_split = FORMATS[config.format].functions().read(root, splits)
    return {name: {"instances": content} for name, content in content_of_split.items()}


def _needs_own_files(train: SplitConfig, val: SplitConfig, root: Path) -> bool:
    """Returns whether an image entry in COCO's annotation files lacks values that the image file provides."""
    return any(_completed_file(file, root, split)[1] for split in (train, val) for file in _coco_files(split, root).values())


def _coco_files(split: SplitConfig, root: Path) -> dict[str, Path]:
    files = {kind: getattr(split, kind) for kind in ("instances", "panoptic")}
    return {kind: below_root(root, file, kind) for kind, file in files.items() if file is not None}


def _completed_file(file: Path, root: Path, split: SplitConfig) -> tuple[dict[str, Any], bool]:
    """Returns the content of a COCO annotation file with completed image entries, and whether any entry was changed."""
    content = read_content(file)
    images = completed(content["images"], below_root(root, split.images, "images"))
    changed = any(new is not old for new, old in zip(images, content["images"], strict=True))
    return {**content, "images": images}, changed


def _divided(contents: Contents, share: float, seed: int, images: Path) -> dict[str, Contents]:
    """Divides `contents` into 'train' and 'val'. Every entry goes to one of them. images: the folder of the images."""
    classes: dict[int, set[int]] = {}
    files: dict[int, Path] = {}
    for content in contents.values():
        for entry in content["images"]:
            if (number := id_in(entry, "id")) is not None:
                classes.setdefault(number, set())
                if (file := image_file(images, entry.get("file_name"))) is not None:
                    files[number] = file
    for content in contents.values():
        for entry in content["annotations"]:
            number = id_in(entry, "image_id")
            if number is not None and number in classes:
                segments = entry.get("segments_info", [entry])
                categories = [id_in(segment, "category_id") for segment in segments] if isinstance(segments, list) else []
                classes[number] |= {category for category in categories if category is not None}
    val = stratified({number: sorted(numbers) for number, numbers in classes.items()}, share, seed, same_content(files))
    if not val or len(val) == len(classes):
        raise DatasetError(
            f"{images}: expected two images of different content or more, to divide them into train and val, "
            f"found {len(classes)} images"
        )
    parts: dict[str, Contents] = {"train": {}, "val": {}}
    for kind, content in contents.items():
        halves = parted(content, val)
        for part in ("images", "annotations"):
            Account(f"{images}: {kind}: {part}", len(content[part]), sum(len(half[part]) for half in halves.values()), 0)
        for name, half in halves.items():
            parts[name][kind] = half
    return parts
