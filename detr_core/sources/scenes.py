"""Generates scenes and writes them as a COCO dataset: images, instances and panoptic segments."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from detr_core.data.config import SplitConfig
from detr_core.data.splits import write_dataset
from detr_core.reporter import Reporter
from detr_core.sources.config import ScenesConfig
from detr_core.sources.drawing import STUFF, THINGS, Scene, draw_scene
from detr_core.sources.shapes import Mask

SPLITS = ("train", "val")  # the index of a split in this tuple is part of the seeds of its images
_CHUNK = 100  # number of images that a process draws before it reports
_JPEG_QUALITY = 95

CATEGORIES = [
    {"id": number, "name": name, "supercategory": "thing" if name in THINGS else "stuff", "isthing": int(name in THINGS)}
    for number, name in enumerate([*THINGS, *STUFF], start=1)
]
_CATEGORY_ID: dict[str, Any] = {str(category["name"]): category["id"] for category in CATEGORIES}


@dataclass(frozen=True)
class _Records:
    """The entries of one image in the annotation files."""

    image: dict[str, Any]
    instances: list[dict[str, Any]]
    panoptic: dict[str, Any]


def generate_scenes(config: ScenesConfig, seed: int, folder: Path, processes: int, reporter: Reporter) -> None:
    """Writes the scenes that `config` describes below `folder`, in COCO's layout, with a `dataset.json`.

    The files are train/*.jpg and val/*.jpg, annotations/instances_{train,val}.json (things, masks as RLE),
    annotations/panoptic_{train,val}.json, and the PNGs in folders of the latter names (things and stuff).
    Boxes and areas describe the visible part of an object. An image depends only on (seed, split, index), so the files do not
    depend on the number of `processes`.
    """
    counts = {"train": config.train, "val": config.val}
    for split in SPLITS:
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / "annotations" / f"panoptic_{split}").mkdir(parents=True, exist_ok=True)
    chunks = [
        (split, range(start, min(start + _CHUNK, counts[split]))) for split in SPLITS for start in range(0, counts[split], _CHUNK)
    ]
    records: dict[str, list[_Records]] = {split: [] for split in SPLITS}
    begin, done, total = time.monotonic(), 0, sum(counts.values())
    for (split, _), chunk_records in zip(chunks, _draw_chunks(config, seed, folder, chunks, processes), strict=True):
        records[split] += chunk_records
        done += len(chunk_records)
        reporter.progress(done, total, done / (time.monotonic() - begin), f"{split} scenes")
    for split in SPLITS:
        _write_annotations(folder / "annotations", split, records[split])
    train, val = (
        SplitConfig(
            split,
            f"annotations/instances_{split}.json",
            f"annotations/panoptic_{split}.json",
            f"annotations/panoptic_{split}",
        )
        for split in SPLITS
    )
    write_dataset(folder, folder, train, val)


def _draw_chunks(
    config: ScenesConfig, seed: int, folder: Path, chunks: list[tuple[str, range]], processes: int
) -> Iterator[list[_Records]]:
    draw = partial(_draw_chunk, config, seed, folder)
    if processes <= 1:
        yield from map(draw, chunks)
        return
    # Processes are spawned, because a fork would copy the locks of the caller's threads.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, chunks)


def _draw_chunk(config: ScenesConfig, seed: int, folder: Path, chunk: tuple[str, range]) -> list[_Records]:
    split, indices = chunk
    records = []
    for index in indices:
        scene = draw_scene(config, np.random.default_rng([seed, SPLITS.index(split), index]))
        records.append(_write_scene(scene, folder, split, index))
    return records


def _write_scene(scene: Scene, folder: Path, split: str, index: int) -> _Records:
    name = f"{index:012d}"
    height, width = scene.image.shape[:2]
    Image.fromarray(scene.image).save(folder / split / f"{name}.jpg", quality=_JPEG_QUALITY)
    # The id of a segment is its colour in the PNG, R + 256 G + 256^2 B; it must be unique in its image and not 0.
    ids = np.zeros((height, width, 3), dtype=np.uint8)
    ids[..., 0] = scene.segments + 1
    Image.fromarray(ids).save(folder / "annotations" / f"panoptic_{split}" / f"{name}.png", compress_level=1)
    segments_info, instances = [], []
    for segment in np.unique(scene.segments).tolist():
        mask = scene.segments == segment
        common = {"category_id": _CATEGORY_ID[scene.names[segment]], "iscrowd": 0, **_box_and_area(mask)}
        segments_info.append({"id": segment + 1, **common})
        if scene.names[segment] in THINGS:
            encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            segmentation = {"size": [height, width], "counts": encoded["counts"].decode("ascii")}
            instances.append({"image_id": index, **common, "segmentation": segmentation})
    image = {"id": index, "file_name": f"{name}.jpg", "height": height, "width": width}
    return _Records(image, instances, {"image_id": index, "file_name": f"{name}.png", "segments_info": segments_info})


def _box_and_area(mask: Mask) -> dict[str, Any]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    left, top = int(columns[0]), int(rows[0])
    box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return {"bbox": box, "area": int(np.count_nonzero(mask))}


def _write_annotations(folder: Path, split: str, records: list[_Records]) -> None:
    images = [record.image for record in records]
    instances = [instance for record in records for instance in record.instances]
    things = [category for category in CATEGORIES if category["isthing"]]
    contents: dict[str, Any] = {
        f"instances_{split}.json": {
            "images": images,
            "annotations": [{"id": number, **instance} for number, instance in enumerate(instances, start=1)],
            "categories": things,
        },
        f"panoptic_{split}.json": {
            "images": images,
            "annotations": [record.panoptic for record in records],
            "categories": CATEGORIES,
        },
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
