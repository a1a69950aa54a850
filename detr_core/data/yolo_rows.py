"""The rows of YOLO's label files: the meaning of their columns in a dataset, and the object that a row describes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detr_core.data.dataset import DatasetError

Labels = Literal["boxes", "polygons", "keypoints"]

BOX = 5  # columns: class, center x, center y, width, height
TRACKED = 7  # columns of a box with a confidence and a track id, as trackers write them
POINTED = 0.8  # the share of rows that have to look like keypoints for a set to be taken for one
OPTION = (
    "`--labels boxes`, `--labels polygons` or `--labels keypoints` of flows.adopt (`labels` in `data.folder`) says how to read"
)

LEFT_OUT = {"boxes": "columns after the box (a confidence or a track id)", "keypoints": "columns of keypoints"}


@dataclass(frozen=True)
class Row:
    """One row of a label file. where: file and line, as messages name them. columns: their texts in the file."""

    where: str
    columns: tuple[str, ...]


class RowError(ValueError):
    """A row that describes no object. unknown_class: only its class is wrong. The message has no file and line."""

    def __init__(self, message: str, unknown_class: bool = False) -> None:
        super().__init__(message)
        self.unknown_class = unknown_class


def decided_labels(rows: Sequence[Row], keypoints: tuple[int, int] | None) -> Labels:
    """How to read the rows of a dataset, if the user has not said it. keypoints: `kpt_shape` of its description.

    Rows of 5 columns are boxes. Longer rows are keypoints where `kpt_shape` is given; they are polygons where each has an odd
    number of columns and at least one has more than three points. Rows that could be something else (a confidence, a
    track id, keypoints without `kpt_shape`) are never taken for polygons.
    Raises DatasetError, which names file, line, number of columns and the option that says how to read the set.
    """
    if keypoints is not None:
        for row in rows:
            if len(row.columns) >= BOX and not fits(len(row.columns), "keypoints", keypoints):
                number, dimensions = keypoints
                expected = f"{BOX + number * dimensions} columns, a box and {number} x {dimensions} of keypoints (kpt_shape)"
                raise DatasetError(f"{row.where}: expected {expected}, found {len(row.columns)} columns; {OPTION} the set")
        return "keypoints"
    long = [row for row in rows if len(row.columns) > BOX]
    if not long:
        return "boxes"
    odd_one = next((row for row in long if not fits(len(row.columns), "polygons", None)), None)
    if odd_one is not None or all(len(row.columns) <= TRACKED for row in long):
        _refuse(odd_one or long[0], "which could be a confidence, a track id or keypoints")
    if len({len(row.columns) for row in long}) == 1 and not _all_parallelograms(long) and _mostly_keypoints(long):
        _refuse(long[0], "which look like a box with keypoints, and kpt_shape is not given")
    return "polygons"


def _refuse(row: Row, why: str) -> None:
    raise DatasetError(
        f"{row.where}: expected a box (`class cx cy w h`) or a polygon (`class x1 y1 x2 y2 x3 y3 ...`), found "
        f"{len(row.columns)} columns, {why}; {OPTION} the set"
    )


def fits(columns: int, labels: Labels, keypoints: tuple[int, int] | None) -> bool:
    """Whether a row with this number of columns can be read as `labels`. As polygons, boxes can too: exporters mix the two."""
    if labels == "boxes":
        return BOX <= columns <= TRACKED
    if labels == "polygons":
        return columns == BOX or (columns >= TRACKED and columns % 2 == 1)
    return columns == BOX + keypoints[0] * keypoints[1] if keypoints else columns > BOX


def row_object(
    row: Row, labels: Labels, keypoints: tuple[int, int] | None, classes: int, size: tuple[int, int]
) -> tuple[dict[str, Any], int]:
    """The object that a row describes, as COCO has it, and how many of its columns are left out.

    classes: how many the set has; size: (h, w) of the image, pixels. Raises RowError for a row that describes none.
    """
    try:
        label, values = float(row.columns[0]), [float(value) for value in row.columns[1:]]
    except ValueError:
        raise RowError(f"expected a class and coordinates in numbers, found {_shown(row)}") from None
    if not fits(len(row.columns), labels, keypoints):
        raise RowError(f"expected {_expected(labels, keypoints)}, found {len(row.columns)} columns: {_shown(row)}")
    used = values if labels == "polygons" else values[: BOX - 1]
    if not all(map(math.isfinite, used)):
        raise RowError(f"expected finite numbers, found {_shown(row)}")
    if not label.is_integer() or not 0 <= label < classes:
        raise RowError(f"expected a class from 0 to {classes - 1}, found {row.columns[0][:40]}", unknown_class=True)
    found = _polygon(used, size) if len(used) >= BOX else _box(used, size)
    if not all(map(math.isfinite, (*found["bbox"], found["area"]))):
        raise RowError(f"expected coordinates from 0 to 1, found {_shown(row)}")
    return {"category_id": int(label) + 1, **found}, len(values) - len(used)


def _polygon(values: list[float], size: tuple[int, int]) -> dict[str, Any]:
    height, width = size
    xs, ys = [width * x for x in values[0::2]], [height * y for y in values[1::2]]
    x, y, w, h = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    outline = [coordinate for point in zip(xs, ys, strict=True) for coordinate in point]
    return {"bbox": [x, y, w, h], "area": w * h, "segmentation": [outline]}


def _box(values: list[float], size: tuple[int, int]) -> dict[str, Any]:
    height, width = size
    w, h = width * values[2], height * values[3]
    return {"bbox": [width * values[0] - w / 2, height * values[1] - h / 2, w, h], "area": w * h}


def _expected(labels: Labels, keypoints: tuple[int, int] | None) -> str:
    if labels == "boxes":
        return "`class cx cy w h`, and at most a confidence and a track id after the box"
    if labels == "polygons":
        return "`class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...` of a polygon"
    if keypoints is None:
        return "`class cx cy w h` and keypoints"
    return f"`class cx cy w h` and {keypoints[0]} x {keypoints[1]} columns of keypoints (kpt_shape)"


def _shown(row: Row) -> str:
    return repr(" ".join(row.columns)[:60])


def _all_parallelograms(rows: Sequence[Row]) -> bool:
    """Whether every row is a polygon of four points, opposite sides alike: an upright or a turned rectangle."""
    for row in rows:
        values = _numbers(row)
        if values is None or len(values) != 8:
            return False
        (x1, x2, x3, x4), (y1, y2, y3, y4) = values[0::2], values[1::2]
        if abs(x1 - x2 + x3 - x4) > 0.01 or abs(y1 - y2 + y3 - y4) > 0.01:
            return False
    return True


def _mostly_keypoints(rows: Sequence[Row]) -> bool:
    """Whether most rows can be a box inside the image, with points inside the box, or at 0 where they are not labelled."""
    return sum(any(_pointed(row, dimensions) for dimensions in (2, 3)) for row in rows) > POINTED * len(rows)


def _pointed(row: Row, dimensions: int) -> bool:
    values = _numbers(row)
    if values is None or (len(values) - 4) % dimensions:
        return False
    cx, cy, w, h = values[:4]
    slack = 0.02
    if w <= 0 or h <= 0 or min(cx - w / 2, cy - h / 2) < -slack or max(cx + w / 2, cy + h / 2) > 1 + slack:
        return False
    points = [values[start : start + dimensions] for start in range(4, len(values), dimensions)]
    if dimensions == 3 and any(point[2] not in (0, 1, 2) for point in points):
        return False
    return all((x == 0 == y) or (abs(x - cx) <= 0.6 * w and abs(y - cy) <= 0.6 * h) for x, y, *_ in points)


def _numbers(row: Row) -> list[float] | None:
    try:
        return [float(value) for value in row.columns[1:]]
    except ValueError:
        return None
