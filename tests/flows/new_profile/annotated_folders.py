"""Writes small YOLO and Pascal VOC datasets, and reads their splits as `adopt` and the data stage do."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from detr_core.config import build
from detr_core.data.splits import read_dataset
from detr_core.sources.config import FolderConfig
from detr_core.sources.folder import write_folder_dataset
from flows.new_profile.dataset_layout import find_layout
from flows.new_profile.yolo_layout import yolo_set


def write_yolo(folder: Path, description: str, *folders: str, name: str = "data.yaml") -> None:
    """Writes different images 1.png, 2.png and 3.png to each of the folders, one box for each image, and the description."""
    for images in folders:
        write_pictures(folder / images, seed=len(images))
        for number in (1, 2, 3):
            label = folder / images.replace("images", "labels") / f"{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 .5 .5 .2 .2\n")
    (folder / name).write_text(description + "\nnames: [red]\n")


def write_pictures(folder: Path, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (20, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def write_voc(folder: Path, annotations: str, images: str, seed: int = 0) -> None:
    write_pictures(folder / images, seed)
    (folder / annotations).mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        (folder / annotations / f"{number}.xml").write_text(
            f"<annotation><filename>{number}.png</filename><object><name>red</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
    (folder / annotations / "._1.xml").write_bytes(b"\0\5\x16\7")


def splits(folder: Path) -> dict[str, list[str]]:
    """Returns the images of each split, relative to the folder, as `adopt` and the data stage read them."""
    config = build(FolderConfig, {"root": str(folder), **find_layout(folder, 0.34).section}, "x")
    with TemporaryDirectory() as out:
        write_folder_dataset(config, folder, 0, yolo_set(folder) if config.format == "yolo" else None, Path(out))
        images_of = {}
        for name, split in read_dataset(Path(out)).items():
            assert split.instances is not None
            images = json.loads(split.instances.read_bytes())["images"]
            assert all((split.images / image["file_name"]).is_file() for image in images)
            images_of[name] = sorted((split.images / image["file_name"]).relative_to(folder).as_posix() for image in images)
        return images_of


def three(*folders: str) -> list[str]:
    return sorted(f"{images}/{number}.png" for images in folders for number in (1, 2, 3))
