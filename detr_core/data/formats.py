"""Annotations in the formats of YOLO and Pascal VOC, as the content of a COCO annotation file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hotcoco
from PIL import Image

from detr_core.data.config import SplitConfig
from detr_core.data.dataset import DatasetError, below_root
from detr_core.data.images import upright_size


def from_yolo(root: Path, split: SplitConfig, names: Sequence[str]) -> dict[str, Any]:
    """COCO's content of YOLO labels: a text file an image, a line an object, coordinates 0..1 of the upright image.

    A line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon. split.instances: folder of the label files; an
    image without one has no objects. names: of the classes, in order. Ids are numbered from 1, images by name.
    (hotcoco's conversion wants all images labelled, reads boxes alone and forgets the endings of file names.)
    Raises DatasetError, which names the file and the line.
    """
    images, labels = _folder(root, split.images, "images"), _folder(root, split.instances, "instances")
    endings = Image.registered_extensions()
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in endings)
    if not files:
        raise DatasetError(f"{images}: expected images, found none")
    if len({path.stem for path in files}) < len(files):
        raise DatasetError(f"{images}: expected each image's name once, found one with two endings: whose are its labels?")
    entries: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, path in enumerate(files, start=1):
        height, width = upright_size(path)
        entries.append({"id": number, "file_name": path.name, "height": height, "width": width})
        label = labels / f"{path.stem}.txt"
        lines = label.read_text(encoding="utf-8", errors="replace").splitlines() if label.is_file() else []
        for line_number, line in enumerate(lines, start=1):
            if line.strip():
                found = _yolo_object(line, len(names), height, width, f"{label}: line {line_number}")
                objects.append({"id": len(objects) + 1, "image_id": number, "iscrowd": 0, **found})
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": entries, "annotations": objects, "categories": categories}


def from_voc(root: Path, split: SplitConfig) -> dict[str, Any]:
    """COCO's content of Pascal VOC's XML files, converted by hotcoco: `difficult` objects become crowds, which train nothing.

    split.instances: `Annotations`, the folder of the XML files, or a list of image names such as `ImageSets/Main/train.txt`, a
    name a line. The classes are those of all XML files, by name; so they are the same for every list.
    Raises DatasetError, which names the file.
    """
    _folder(root, "Annotations", "instances")
    try:
        content: dict[str, Any] = hotcoco.COCO.from_voc(str(root)).dataset
    except (ValueError, OSError) as error:
        raise DatasetError(f"{root / 'Annotations'}: expected Pascal VOC's annotations: {error}") from None
    chosen = below_root(root, split.instances or "", "instances")
    if chosen.is_dir():
        return content
    try:
        names = {line.split()[0] for line in chosen.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{chosen}: expected a folder of XML files or a list of image names: {error}") from None
    images = [image for image in content["images"] if Path(image["file_name"]).stem in names]
    if len(images) < len(names):
        missing = sorted(names - {Path(image["file_name"]).stem for image in images})
        raise DatasetError(f"{chosen}: expected an annotation of every image, found none of {missing[0]!r}")
    ids = {image["id"] for image in images}
    annotations = [annotation for annotation in content["annotations"] if annotation["image_id"] in ids]
    return {**content, "images": images, "annotations": annotations}


def _yolo_object(line: str, classes: int, height: int, width: int, where: str) -> dict[str, Any]:
    try:
        label, values = int(line.split()[0]), [float(value) for value in line.split()[1:]]
    except ValueError:
        raise DatasetError(f"{where}: expected `class cx cy w h` in numbers, found {line.strip()!r}") from None
    if not 0 <= label < classes:
        raise DatasetError(f"{where}: expected a class from 0 to {classes - 1}, found {label}")
    polygon = len(values) >= 6 and len(values) % 2 == 0
    if not (len(values) == 4 or polygon) or not all(map(math.isfinite, values)):
        raise DatasetError(f"{where}: expected `class cx cy w h` or a polygon, found {line.strip()!r}")
    if polygon:
        xs, ys = [width * x for x in values[0::2]], [height * y for y in values[1::2]]
        x, y, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
        outline = [coordinate for point in zip(xs, ys, strict=True) for coordinate in point]
        return {"category_id": label + 1, "bbox": [x, y, w, h], "area": w * h, "segmentation": [outline]}
    w, h = width * values[2], height * values[3]
    return {
        "category_id": label + 1,
        "bbox": [width * values[0] - w / 2, height * values[1] - h / 2, w, h],
        "area": w * h,
    }


def _folder(root: Path, name: str | None, field: str) -> Path:
    path = below_root(root, name or "", field)
    if not path.is_dir():
        raise DatasetError(f"{field}: expected a folder, found none at {path}")
    return path
