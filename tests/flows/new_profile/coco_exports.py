"""Writes datasets in the COCO format as annotation tools export them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Content = dict[str, Any]


BOXES = [[10, 12, 60, 40], [80, 20, 30, 30]]


def pictures(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(list(name.encode())).integers(0, 255, (90, 160, 3), dtype=np.uint8)).save(
            folder / name
        )


def roboflow(root: Path) -> None:
    for split, name in (("train", "a"), ("valid", "b")):
        files = [f"{name}{number}_jpg.rf.0b1c.jpg" for number in range(4)]
        pictures(root / split, files)
        captured = "2021-03-08T20:04:05+00:00"
        write(root / split / "_annotations.coco.json", {
            "info": {
                "year": "2021", "version": "1", "description": "Exported from roboflow.ai", "contributor": "",
                "url": "https://public.roboflow.ai/object-detection/undefined", "date_created": captured,
            },
            "licenses": [{"id": 1, "url": "https://creativecommons.org/licenses/by/4.0/", "name": "CC BY 4.0"}],
            "categories": [
                {"id": 0, "name": "cells", "supercategory": "none"}, {"id": 1, "name": "RBC", "supercategory": "cells"},
            ],
            "images": [
                {"id": index, "license": 1, "file_name": file, "height": 90, "width": 160, "date_captured": captured}
                for index, file in enumerate(files)
            ],
            "annotations": [
                {"id": 2 * index + number, "image_id": index, "category_id": 1, "bbox": box, "area": box[2] * box[3],
                 "segmentation": [], "iscrowd": 0}
                for index in range(4) for number, box in enumerate(BOXES)
            ],
        })  # fmt: skip


def cvat(root: Path) -> None:
    for split in ("Train", "Validation"):
        files = [f"{split}{number}.png" for number in range(4)]
        pictures(root / "images" / split, files)
        (root / "annotations").mkdir(exist_ok=True)
        write(root / "annotations" / f"instances_{split}.json", {
            "licenses": [{"name": "", "id": 0, "url": ""}],
            "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
            "categories": [{"id": 1, "name": "red", "supercategory": ""}, {"id": 2, "name": "blue", "supercategory": ""}],
            "images": [
                {"id": index, "width": 160, "height": 90, "file_name": file, "license": 0, "flickr_url": "", "coco_url": "",
                 "date_captured": 0}
                for index, file in enumerate(files, start=1)
            ],
            "annotations": [
                {"id": 2 * index + number, "image_id": index, "category_id": number + 1, "segmentation": [polygon(box)],
                 "area": float(box[2] * box[3]), "bbox": box, "iscrowd": 0,
                 "attributes": {"occluded": False, "rotation": 0.0}}
                for index in range(1, 5) for number, box in enumerate(BOXES)
            ],
        })  # fmt: skip


def label_studio(root: Path) -> None:
    files = [f"images\\{number}f1b-photo_{number}.png" for number in range(8)]  # as it writes them on Windows
    pictures(root, [file.replace("\\", "/") for file in files])
    write(root / "result.json", {
        "images": [{"width": 160, "height": 90, "id": index, "file_name": file} for index, file in enumerate(files)],
        "categories": [{"id": 0, "name": "Airplane"}, {"id": 1, "name": "Car"}],
        "annotations": [
            {"id": 2 * index + number, "image_id": index, "category_id": number, "segmentation": [], "bbox": box, "ignore": 0,
             "iscrowd": 0, "area": box[2] * box[3]}
            for index in range(8) for number, box in enumerate(BOXES)
        ],
        "info": {
            "year": 2023, "version": "1.0", "description": "", "contributor": "Label Studio", "url": "",
            "date_created": "2023-05-09 12:17:45.246281",
        },
    })  # fmt: skip


def labelme(root: Path) -> None:
    files = [f"JPEGImages/2011_{number:06d}.jpg" for number in range(8)]
    pictures(root, files)
    write(root / "annotations.json", {
        "info": {
            "description": None, "url": None, "version": None, "year": 2024, "contributor": None,
            "date_created": "2024-02-01 10:00:00.000001",
        },
        "licenses": [{"url": None, "id": 0, "name": None}],
        "images": [
            {"license": 0, "url": None, "file_name": file, "height": 90, "width": 160, "date_captured": None, "id": index}
            for index, file in enumerate(files)
        ],
        "type": "instances",
        "annotations": [
            {"id": 2 * index + number, "image_id": index, "category_id": number, "segmentation": [polygon(box)],
             "area": float(box[2] * box[3]), "bbox": [float(side) for side in box], "iscrowd": 0}
            for index in range(8) for number, box in enumerate(BOXES)
        ],
        "categories": [
            {"supercategory": None, "id": 0, "name": "_background_"}, {"supercategory": None, "id": 1, "name": "person"},
        ],
    })  # fmt: skip


def odd(root: Path) -> None:
    cvat(root)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["licenses"] = [{"id": "MIT", "name": 7, "url": None}, "none"]
        for annotation in content["annotations"]:
            annotation["id"] = f"object-{annotation['id']}"
        file.write_text(json.dumps(content), encoding="utf-8-sig")


def polygon(box: list[int]) -> list[int]:
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def write(file: Path, content: Content) -> None:
    file.write_text(json.dumps(content))
