"""Measures how many images per second the data check reads: `python benchmarks/data_check.py FOLDER [FOLDER ...]`

Each FOLDER contains a dataset in a layout that `flows.adopt` supports. Its images are copied with their annotations until there
are at least --images images, so that the time is that of reading and not of starting. The copies are in the page cache, so the
speed of the disk is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from detr_core.check.inspection import inspect
from detr_core.data.config import SplitConfig
from detr_core.data.splits import read_dataset, write_dataset
from detr_core.reporter import Silent
from flows.new_profile.dataset_layout import find_layout

REQUIRED = 150.0  # lowest number of images per second on 2 processors


def enlarge(folder: Path, out: Path, least: int) -> int:
    """Writes a dataset to `out` whose train split repeats that of `folder` until it has `least` images. Returns their number."""
    layout = find_layout(folder, 0.2).section["train"]
    sources = [source for source in ("instances", "panoptic") if layout[source] is not None]
    contents: dict[str, dict[str, Any]] = {source: json.loads((folder / layout[source]).read_bytes()) for source in sources}
    names = [image["file_name"] for image in contents[sources[0]]["images"]]
    times = -(-least // len(names))
    (out / "images").mkdir(parents=True)
    (out / "panoptic").mkdir()
    step = 1 + max(image["id"] for image in contents[sources[0]]["images"])
    for copy in range(times):
        for name in names:
            shutil.copyfile(folder / layout["images"] / name, out / "images" / f"{copy}_{name}")
    for source, content in contents.items():
        images = [
            image | {"id": image["id"] + copy * step, "file_name": f"{copy}_{image['file_name']}"}
            for copy in range(times)
            for image in content["images"]
        ]
        annotations = []
        for copy in range(times):
            for entry in content["annotations"]:
                copied_entry = entry | {"image_id": entry["image_id"] + copy * step}
                if source == "instances":
                    copied_entry["id"] = len(annotations) + 1
                else:
                    copied_entry["file_name"] = f"{copy}_{entry['file_name']}"
                    shutil.copyfile(
                        folder / layout["panoptic_masks"] / entry["file_name"], out / "panoptic" / copied_entry["file_name"]
                    )
                annotations.append(copied_entry)
        (out / f"{source}.json").write_text(json.dumps(content | {"images": images, "annotations": annotations}))
    panoptic = "panoptic" in contents
    train = SplitConfig(
        "images",
        "instances.json" if "instances" in contents else None,
        *(("panoptic.json", "panoptic") if panoptic else (None, None)),
    )
    # The val split has one image, so that the time is that of the train split.
    few = {source: json.loads((out / f"{source}.json").read_bytes()) for source in contents}
    for source, content in few.items():
        first = content["images"][0]["id"]
        first_image = {
            "images": content["images"][:1],
            "annotations": [e for e in content["annotations"] if e["image_id"] == first],
        }
        (out / f"{source}_val.json").write_text(json.dumps(content | first_image))
    val = SplitConfig(
        "images", train.instances and "instances_val.json", train.panoptic and "panoptic_val.json", train.panoptic_masks
    )
    write_dataset(out, out, train, val)
    return times * len(names)


def main() -> None:
    """Prints a table, and exits with 1 if a folder is read more slowly than REQUIRED."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="folder of a dataset")
    parser.add_argument("--images", type=int, default=1000, help="smallest number of images (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="number of runs, of which the fastest is reported (default: %(default)s)"
    )
    arguments = parser.parse_args()
    table = Table("folder", "images", "seconds", "images/s", "images/s of processor time", title=f"{os.cpu_count()} processors")
    slowest = float("inf")
    for folder in arguments.folder:
        with TemporaryDirectory() as temporary:
            images = enlarge(folder, Path(temporary) / "data", arguments.images)
            splits = read_dataset(Path(temporary) / "data")
            times = []
            for _ in range(arguments.repeats):
                began, worked = time.monotonic(), time.process_time()
                inspect(splits, 100, Silent())
                times.append((time.monotonic() - began, time.process_time() - worked))
            seconds, worked = min(times)
            slowest = min(slowest, images / seconds)
            table.add_row(folder.name, str(images), f"{seconds:.1f}", f"{images / seconds:.0f}", f"{images / worked:.0f}")
    Console().print(table)
    if slowest < REQUIRED:
        raise SystemExit(f"the check is slower than the required {REQUIRED:.0f} images/s")


if __name__ == "__main__":
    main()
