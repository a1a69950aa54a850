"""Converts annotations in YOLO's format to the content of COCO annotation files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detr_core.data.config import SplitConfig
from detr_core.data.images import upright_size
from detr_core.data.splits import DatasetError, below_root
from detr_core.sources.formats.conversion import DROPPED, FAULT
from detr_core.sources.formats.yolo_rows import BOX, LEFT_OUT, Labels, Row, RowError, decided_labels, row_object
from detr_core.sources.picture_files import below, is_file, is_foreign, picture_files, read_lines

LABELS_PLACE = "label files are expected in a folder `labels` if the images are in a folder `images`, else beside the images"


@dataclass(frozen=True)
class YoloSet:
    """The content of the description of a YOLO dataset (`data.yaml`).

    file: its name. names: the class names in order. keypoints: number and dimensions (`kpt_shape`), or None. base: the folder
    below the root that its paths are relative to. places: 'train', 'val' -> folders and lists of images, below the root.
    """

    file: str
    names: tuple[str, ...]
    keypoints: tuple[int, int] | None
    base: str = "."
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """An image of a split. name: its path below the split's folder of images. file: its path. labels: its label file's path."""

    name: str
    file: Path
    labels: Path


def read_yolo(root: Path, splits: Mapping[str, SplitConfig], yolo: YoloSet, labels: Labels | None) -> dict[str, dict[str, Any]]:
    """Returns split -> the content of its COCO annotation file.

    A label file describes an image, and a row of it an object, with coordinates in 0..1 of the upright image.
    splits: `instances` is the folder of a split's label files, or the dataset's description, whose entry for the split names the
    images. labels: how rows are read; None decides it by `decided_labels`.
    An image without a label file has no objects. Ids start at 1; images are sorted by name. An entry that can't be converted
    keeps its place and gets the reason in its field `conversion_fault`, which the data check reports.
    Raises DatasetError for a split without images, and for rows with an ambiguous meaning.
    """
    pictures = {name: split_pictures(root, name, split, yolo) for name, split in splits.items()}
    for name, split_images in pictures.items():
        if not any(is_file(picture.labels) for picture in split_images):
            expected = f"a label file such as {split_images[0].labels.relative_to(root)}"
            raise DatasetError(
                f"{root}: {name}: expected {expected} for an image, found none for any of "
                f"{len(split_images)} images; {LABELS_PLACE}"
            )
    rows: dict[Path, list[Row] | str] = {}
    for split_images in pictures.values():
        for picture in split_images:
            if picture.labels not in rows:
                rows[picture.labels] = label_rows(picture.labels, root)
    if labels is None:
        labels = decided_labels(
            [row for file_rows in rows.values() if isinstance(file_rows, list) for row in file_rows], yolo.keypoints
        )
    converter = _Converter(root, yolo, labels, rows)
    return {name: converter.content(pictures[name], _orphaned_label_files(root, splits[name], pictures[name])) for name in splits}


def yolo_labels(root: Path, splits: Mapping[str, SplitConfig], yolo: YoloSet) -> Labels:
    """Returns how `decided_labels` reads the rows of these splits. Raises DatasetError if the rows are ambiguous."""
    files = {picture.labels for name, split in splits.items() for picture in split_pictures(root, name, split, yolo)}
    rows_of_files = (label_rows(file, root) for file in sorted(files))
    return decided_labels([row for rows in rows_of_files if isinstance(rows, list) for row in rows], yolo.keypoints)


def split_pictures(root: Path, name: str, split: SplitConfig, yolo: YoloSet) -> list[Picture]:
    """Returns the images of a split, sorted by name. Raises DatasetError if there are none."""
    assert split.instances is not None  # FolderConfig requires it
    if split.instances == yolo.file:
        places = yolo.places.get(name, ())
        if not places:
            raise DatasetError(f"{root / yolo.file}: {name}: expected folders or lists of images, found none")
        image_names = dict.fromkeys(file for place in places for file in _listed_files(root, place, yolo.base))
        return [Picture(file, root / file, _label_file(root / labels_of(file))) for file in image_names]
    images = below_root(root, split.images, "images")
    labels = below_root(root, split.instances, "instances")
    if not images.is_dir():
        raise DatasetError(f"{images}: expected the folder of the images of {name}, found none")
    if not labels.is_dir():
        raise DatasetError(f"{labels}: expected the folder of the label files of {name}, found none; {LABELS_PLACE}")
    files = list(picture_files(images))
    if not files:
        raise DatasetError(f"{images}: expected images, found none")
    return [Picture(file, images / file, _label_file(labels / f"{os.path.splitext(file)[0]}.txt")) for file in files]


def labels_of(image: str) -> str:
    """Returns the path of an image's label file, relative to the root like `image`.

    The last folder `images` of the path becomes `labels`; without such a folder the label file lies beside the image.
    """
    *folders, name = image.split("/")
    for index in range(len(folders) - 1, -1, -1):
        if folders[index].lower() == "images":
            folders[index] = {"Images": "Labels", "IMAGES": "LABELS"}.get(folders[index], "labels")
            break
    return "/".join([*folders, f"{os.path.splitext(name)[0]}.txt"])


def _label_file(path: Path) -> Path:
    """Returns the path, or the same path with the ending `.TXT` if only that file exists."""
    capital = path.with_suffix(".TXT")
    return capital if not is_file(path) and is_file(capital) else path


def label_rows(file: Path, root: Path) -> list[Row] | str:
    """Returns the rows of a label file, or the reason why it can't be read as text. A missing file has no rows."""
    where = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
    try:
        text = file.read_bytes().decode("utf-8-sig", errors="replace")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return f"{where}: expected a readable label file: {error}"
    lines = enumerate(text.splitlines(), start=1)
    return [Row(f"{where}: line {number}", tuple(line.split())) for number, line in lines if line.strip()]


def _listed_files(root: Path, place: str, base: str) -> Iterator[str]:
    """Yields the paths of images below the root. place: a folder of images, or a text file that lists images."""
    path = root / place
    if path.is_dir():
        files = list(picture_files(path))
        if not files:
            raise DatasetError(f"{path}: expected images, found none")
        yield from (file if place == "." else f"{place}/{file}" for file in files)
        return
    lines = read_lines(path)
    names = [_listed_image(root, path, line.replace("\\", "/"), base) for line in lines]
    if not any(is_file(root / name) for name in names):
        examples = f", found no file such as {lines[0][:80]!r}" if lines else ", found an empty list"
        raise DatasetError(f"{path}: expected a list of images that lie below {root}{examples}")
    yield from names


def _listed_image(root: Path, path: Path, line: str, base: str) -> str:
    """Returns the path of the image that a line of a list names: the first candidate that exists, else the first candidate.

    The line is relative to the folder of the list or to `base`. Raises DatasetError for a path outside of the root.
    """
    names = [below(root, os.path.join(place, line)) for place in (path.parent, root / base)]
    inside = [name for name in names if name is not None]
    if not inside:
        raise DatasetError(
            f"{path}: expected images below {root}, found {line[:80]!r}; images outside of this folder are never read"
        )
    return next((name for name in inside if is_file(root / name)), inside[0])


def _orphaned_label_files(root: Path, split: SplitConfig, pictures: Sequence[Picture]) -> list[tuple[Path, list[Row]]]:
    """Returns the label files that belong to no image, with their rows, from the folders of the split's label files."""
    known_files = {picture.labels for picture in pictures}
    orphans = []
    for labels, images in sorted({(picture.labels.parent, picture.file.parent) for picture in pictures}):
        if labels == images or not labels.is_dir() or not images.is_dir():
            continue  # a text file beside the images may be no label file
        stems = {os.path.splitext(name)[0] for name in os.listdir(images)}
        for name in sorted(os.listdir(labels)):
            stem, ending = os.path.splitext(name)
            if ending.lower() != ".txt" or stem in stems or labels / name in known_files or is_foreign(name):
                continue
            rows = label_rows(labels / name, root)
            if isinstance(rows, list) and rows and len(rows[0].columns) >= BOX and _is_number(rows[0].columns[0]):
                orphans.append((labels / name, rows))
    return orphans


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class _Converter:
    root: Path
    yolo: YoloSet
    labels: Labels
    rows: Mapping[Path, list[Row] | str]

    def content(self, pictures: Sequence[Picture], orphans: Sequence[tuple[Path, list[Row]]]) -> dict[str, Any]:
        images: list[dict[str, Any]] = []
        objects: list[dict[str, Any]] = []
        first_names: dict[Path, str] = {}
        for number, picture in enumerate(pictures, start=1):
            entry, size = _image(number, picture, self.root)
            rows = self.rows[picture.labels]
            first_name = first_names.setdefault(picture.labels, picture.name)
            if first_name != picture.name:
                entry |= _unusable(
                    f"{picture.name} and {first_name} have the same label file, so it is unclear which image the labels describe"
                )
                rows = []
            elif isinstance(rows, str):
                entry |= _unusable(rows)
                rows = []
            images.append(entry)
            image_objects = [self._object(row, number, size) for row in rows]
            for image_object in image_objects if FAULT in entry else ():
                image_object.pop("area", None)  # an image without a valid size has no area in pixels
            objects += image_objects
        for file, rows in orphans:
            reason = f"no image has this name, {file.stem!r}"
            objects += [_object(0, self._object(row, 0, (1, 1)) | {FAULT: f"{row.where}: {reason}"}) for row in rows]
        for number, entry in enumerate(objects, start=1):
            entry["id"] = number
        categories = [{"id": number, "name": name} for number, name in enumerate(self.yolo.names, start=1)]
        return {"images": images, "annotations": objects, "categories": categories}

    def _object(self, row: Row, image: int, size: tuple[int, int]) -> dict[str, Any]:
        try:
            entry, dropped = row_object(row, self.labels, self.yolo.keypoints, len(self.yolo.names), size)
        except RowError as error:
            # The data check reports an entry without a category, or with a category that is not listed.
            category = 0 if error.unknown_class else None
            broken = {"category_id": category, "bbox": [0, 0, 0, 0], FAULT: f"{row.where}: {error}"}
            return _object(image, broken)
        return _object(image, entry | ({DROPPED: f"{dropped} {LEFT_OUT[self.labels]}"} if dropped else {}))


def _object(image: int, entry: dict[str, Any]) -> dict[str, Any]:
    return {"id": 0, "image_id": image, "iscrowd": 0, **entry}


def _image(number: int, picture: Picture, root: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    """Returns the entry of an image and its size (h, w). An unreadable image gets 1 x 1; the data check reports it."""
    fault = {}
    try:
        size = upright_size(picture.file)
    except DatasetError as error:
        size, fault = (1, 1), {FAULT: str(error)}
    return {"id": number, "file_name": picture.name, "height": size[0], "width": size[1], **fault}, size


def _unusable(reason: str) -> dict[str, Any]:
    return {"height": None, "width": None, FAULT: reason}
