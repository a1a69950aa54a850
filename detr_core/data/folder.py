"""A dataset folder that the profile names: read in place; what it lacks, our own annotation files make up for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detr_core.data.config import FolderConfig, SplitConfig
from detr_core.data.dataset import DatasetError, below_root, write_dataset
from detr_core.data.fields import read_content
from detr_core.data.formats import from_voc, from_yolo
from detr_core.data.split import only, stratified

Contents = dict[str, dict[str, Any]]  # 'instances', 'panoptic' -> the content of that annotation file


def write_folder_dataset(config: FolderConfig, root: Path, seed: int, names: Sequence[str], folder: Path) -> None:
    """Writes `folder`/dataset.json, which points to the dataset below `root`; no image is copied.

    Where it has no validation split, or annotations in another format than COCO's, `folder`/annotations/ gets files of our own:
    `instances_train.json`, `panoptic_val.json` and so on. seed: of the division. names: of YOLO's classes.
    Raises DatasetError, which names the file, for a folder that isn't such a dataset.
    """
    if config.format == "coco" and config.val is not None:
        write_dataset(folder, root, config.train, config.val)
        return
    contents = {"train": _contents(config, config.train, root, names)}
    if config.val is None:
        assert config.val_share is not None  # FolderConfig requires it
        contents |= _divided(contents["train"], config.val_share, seed, root)
    else:
        contents["val"] = _contents(config, config.val, root, names)
    splits = {"train": config.train, "val": config.val or config.train}
    (folder / "annotations").mkdir()
    for name, kinds in contents.items():
        for kind, content in kinds.items():
            file = f"annotations/{kind}_{name}.json"
            (folder / file).write_text(json.dumps(content), encoding="utf-8")
            splits[name] = replace(splits[name], **{kind: file})
    write_dataset(folder, root, splits["train"], splits["val"], annotations=folder)


def _contents(config: FolderConfig, split: SplitConfig, root: Path, names: Sequence[str]) -> Contents:
    if config.format == "yolo":
        return {"instances": from_yolo(root, split, names)}
    if config.format == "voc":
        return {"instances": from_voc(root, split)}
    files = {kind: getattr(split, kind) for kind in ("instances", "panoptic")}
    return {kind: read_content(below_root(root, file, kind)) for kind, file in files.items() if file is not None}


def _divided(contents: Contents, share: float, seed: int, root: Path) -> dict[str, Contents]:
    try:
        classes: dict[int, set[int]] = {image["id"]: set() for content in contents.values() for image in content["images"]}
        for content in contents.values():
            for entry in content["annotations"]:
                if entry["image_id"] in classes:
                    classes[entry["image_id"]] |= {each["category_id"] for each in entry.get("segments_info", [entry])}
        val = stratified({image: sorted(found) for image, found in classes.items()}, share, seed)
        if not val or len(val) == len(classes):
            raise DatasetError(f"{root}: expected two images or more to divide, found {len(classes)}")
        parts = {"train": set(classes) - val, "val": val}
        return {name: {kind: only(content, ids) for kind, content in contents.items()} for name, ids in parts.items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{root}: an annotation file has an entry without what divides it by class: {error!r}") from None
