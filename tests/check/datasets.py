"""A small valid dataset with instances and panoptic segments, and helpers with which tests break and inspect it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detr_core.check.inspection import Inspection, inspect
from detr_core.data.config import SplitConfig
from detr_core.data.splits import read_dataset, write_dataset
from detr_core.reporter import Silent

CATEGORIES = [{"id": 3, "name": "cat", "isthing": 1}, {"id": 8, "name": "sky", "isthing": 0}]
IMAGES = 4
HEIGHT, WIDTH = 24, 32


def content(split: str, source: str, folder: Path) -> dict[str, Any]:
    """Returns the content of an annotation file."""
    coco: dict[str, Any] = json.loads((folder / f"{source}_{split}.json").read_text())
    return coco


def change(folder: Path, split: str, source: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edits an annotation file in place."""
    coco = content(split, source, folder)
    edit(coco)
    (folder / f"{source}_{split}.json").write_text(json.dumps(coco))


def write_whole(folder: Path, panoptic: bool = True) -> Path:
    """Writes a dataset of 4 images a split, each with a cat (a box, a polygon) and sky around it; returns `folder`."""
    rng = np.random.default_rng(7)
    for split, first in (("train", 1), ("val", 101)):
        images, instances, segments = [], [], []
        (folder / split).mkdir(parents=True)
        (folder / f"panoptic_{split}").mkdir()
        for number in range(first, first + IMAGES):
            pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{number}.jpg")
            images.append({"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH})
            polygon = [4, 6, 14, 6, 14, 18, 4, 18]
            own = {"image_id": number, "category_id": 3, "bbox": [4, 6, 10, 12], "area": 120, "iscrowd": 0}
            instances.append({"id": number, **own, "segmentation": [polygon]})
            ids = np.full((HEIGHT, WIDTH), 300 + number)
            ids[6:18, 4:14] = number
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
            Image.fromarray(rgb).save(folder / f"panoptic_{split}" / f"{number}.png")
            sky = {
                "id": 300 + number,
                "category_id": 8,
                "bbox": [0, 0, WIDTH, HEIGHT],
                "area": HEIGHT * WIDTH - 120,
                "iscrowd": 0,
            }
            cat = {"id": number, "category_id": 3, "bbox": [4, 6, 10, 12], "area": 120, "iscrowd": 0}
            segments.append({"image_id": number, "file_name": f"{number}.png", "segments_info": [cat, sky]})
        things = [{name: category[name] for name in ("id", "name")} for category in CATEGORIES[:1]]
        write(folder / f"instances_{split}.json", images, instances, things)
        write(folder / f"panoptic_{split}.json", images, segments, CATEGORIES)
    train, val = (
        SplitConfig(
            split,
            f"instances_{split}.json",
            f"panoptic_{split}.json" if panoptic else None,
            f"panoptic_{split}" if panoptic else None,
        )
        for split in ("train", "val")
    )
    write_dataset(folder, folder, train, val)
    return folder


def write(file: Path, images: list[Any], annotations: list[Any], categories: list[Any]) -> None:
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def inspected(folder: Path, queries: int = 100) -> Inspection:
    return inspect(read_dataset(folder), queries, Silent())


def kinds(folder: Path) -> set[str]:
    return {finding.kind for finding in inspected(folder).findings}


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def linked(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    path.symlink_to(target)
