"""Measures start-up time and memory with annotations of COCO's size: `python benchmarks/index.py [--workers 4]`.

It generates 118,287 images with 860,001 objects and 1,300,000 panoptic segments, writes their index as the check does, and
reads an epoch with dataloader workers. All images are the same tiny file, but the annotations are as many as COCO's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from detr_core.data.annotation_cache import write_index
from detr_core.data.annotations import Targets
from detr_core.data.batching import BatchPlan, training_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import SplitConfig
from detr_core.data.splits import Split, read_dataset, write_dataset
from detr_core.distributed import single_process

IMAGES, OBJECTS, SEGMENTS = 118_287, 860_001, 1_300_000
WIDTH, HEIGHT = 32, 24
START_UP, MEMORY = 20.0, 1.5e9  # allowed seconds, and allowed bytes of all dataloader workers together


def main() -> None:
    """Prints the table, and exits with 1 if the start-up time or the memory is larger than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=4, help="number of dataloader workers (default: %(default)s)")
    parser.add_argument("--images", type=int, default=IMAGES, help="number of images of the epoch (default: all)")
    arguments = parser.parse_args()
    table = Table("", "without index, s", "with index, s", "allowed", "all dataloader workers, MB", "allowed")
    within_limits = True
    with TemporaryDirectory() as folder:
        split, seconds = generated_split(Path(folder))
        kinds: tuple[Targets, Targets] = ("instances", "panoptic")
        for targets in kinds:
            began = time.monotonic()
            dataset = CocoDataset(split, targets, targets == "panoptic", None, 0)
            start_up = time.monotonic() - began
            bytes_used = memory(dataset, arguments.workers, arguments.images)
            within_limits = within_limits and start_up <= START_UP and bytes_used <= MEMORY
            allowed = f"{START_UP:g}", f"{MEMORY / 1e6:g}"
            table.add_row(
                targets, f"{seconds[targets]:.1f}", f"{start_up:.1f}", allowed[0], f"{bytes_used / 1e6:.0f}", allowed[1]
            )
    Console().print(table)
    if not within_limits:
        sys.exit("the start-up time or the memory is larger than allowed")


def generated_split(folder: Path) -> tuple[Split, dict[str, float]]:
    """Returns a split of COCO's size with its index, and the seconds that reading each annotation file takes without an index."""
    rng = np.random.default_rng(0)
    for name, kind in (("images", "jpg"), ("segments", "png")):
        (folder / name).mkdir()
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"one.{kind}")
        for number in range(IMAGES):
            (folder / name / f"{number:012}.{kind}").symlink_to(folder / f"one.{kind}")
    images = [{"id": n, "file_name": f"{n:012}.jpg", "height": HEIGHT, "width": WIDTH} for n in range(IMAGES)]
    categories = [{"id": n, "name": f"class {n}", "isthing": int(n <= 80)} for n in range(1, 134)]
    segments_of: list[list[dict[str, Any]]] = [[] for _ in range(IMAGES)]
    for number, image in enumerate(rng.integers(IMAGES, size=SEGMENTS).tolist()):
        segments_of[image].append({"id": number + 1, "category_id": number % 133 + 1, "bbox": [3, 4, 20, 10], "iscrowd": 0})
    panoptic = [{"image_id": n, "file_name": f"{n:012}.png", "segments_info": segments} for n, segments in enumerate(segments_of)]
    instances = [
        {"id": number, "image_id": image, "category_id": number % 80 + 1, "bbox": [1.5, 2, 20.25, 10], "iscrowd": 0}
        for number, image in enumerate(rng.integers(IMAGES, size=OBJECTS).tolist())
    ]
    for name, entries in (("instances", instances), ("panoptic", panoptic)):
        content = {"images": images, "annotations": entries, "categories": categories}
        (folder / f"{name}.json").write_text(json.dumps(content))
    config = SplitConfig("images", "instances.json", "panoptic.json", "segments")
    write_dataset(folder, folder, config, config)
    split = read_dataset(folder)["train"]
    seconds: dict[str, float] = {}
    began = time.monotonic()
    for _, targets, _ in write_index({"train": split}):
        seconds[targets] = time.monotonic() - began
        began = time.monotonic()
    return split, seconds


def memory(dataset: CocoDataset, workers: int, images: int) -> float:
    """Returns the largest number of bytes of all dataloader workers together during an epoch. Shared pages count once."""
    most, batch_size = 0, 64
    last = len(dataset) // batch_size
    start = max(0, last - images // batch_size)
    plan, process = BatchPlan(batch_size, accumulation=1, seed=0), single_process(torch.device("cpu"))
    for step, _ in enumerate(training_batches(dataset, plan, 0, start, process, workers), start=start):
        if step % 300 == 299 or step == last - 1:
            most = max(most, sum(process.memory_full_info().pss for process in psutil.Process().children()))
    return float(most)


if __name__ == "__main__":
    main()
