"""Reads the rows of YOLO's label files: decides what their columns mean, and converts a row to an object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detr_core.data.splits import DatasetError

Labels = Literal["boxes", "polygons", "keypoints"]

BOX = 5  # columns: class, center x, center y, width, height
TRACKED = 7  # columns of a box with a confidence and a track id, as trackers write them
POINTED = 0.8  # the share of rows above which a dataset's rows are regarded as keypoints
OPTION = (
    "`--labels boxes`, `--labels polygons` or `--labels keypoints` of flows.adopt (`labels` in `data.folder`) says how to read"
)

LEFT_OUT = {"boxes": "columns after the box (a confidence or a track id)", "keypoints": "columns of keypoints"}


@dataclass(frozen=True)
class Row:
    """One row of a label file. where: file and line, as messages name them. columns: the texts of the columns."""

    where: str
    columns: tuple[str, ...]


class RowError(ValueError):
    """A row describes no valid object. unknown_class: whether only its class is wrong. The message has no file and line."""

    def __init__(self, message: str, unknown_class: bool = False) -> None:
        super().__init__(message)
        self.unknown_class = unknown_class


def decided_labels(rows: Sequence[Row], keypoints: tuple[int, int] | None) -> Labels:
    """Decides how to read the rows of a dataset for which the user has not set `labels`.

    keypoints: `kpt_shape` of the dataset's description. Rows of 5 columns are boxes. Longer rows are keypoints if `kpt_shape` is
    given. They are polygons if each row has an odd number of columns and at least one row has more than three points. Rows that
    could hold something else (a confidence, a track id, keypoints without `kpt_shape`) are never read as polygons.
    Raises DatasetError, which names the file, the line, the number of columns and the option that sets the meaning.
    """
    if keypoints is not None:
        for row in rows:
            if len(row.columns) >= BOX and not fits(len(row.columns), "keypoints", keypoints):
                number, dimensions = keypoints
                expected = (
                    f"{BOX + number * dimensions} columns, a box and {number} x {dimensions} values of keypoints (kpt_shape)"
                )
                raise DatasetError(f"{row.where}: expected {expected}, found {len(row.columns)} columns; {OPTION} the rows")
        return "keypoints"
    long_rows = [row for row in rows if len(row.columns) > BOX]
    if not long_rows:
        return "boxes"
    unclear_row = next((row for row in long_rows if not fits(len(row.columns), "polygons", None)), None)
    if unclear_row is not None or all(len(row.columns) <= TRACKED for row in long_rows):
        _refuse(unclear_row or long_rows[0], "which could be a confidence, a track id or keypoints")
    if len({len(row.columns) for row in long_rows}) == 1 and not _all_parallelograms(long_rows) and _mostly_keypoints(long_rows):
        _refuse(long_rows[0], "which look like a box with keypoints, and kpt_shape is not given")
    return "polygons"


def _refuse(row: Row, reason: str) -> None:
    raise DatasetError(
        f"{row.where}: expected a box (`class cx cy w h`) or a polygon (`class x1 y1 x2 y2 x3 y3 ...`), found "
        f"{len(row.columns)} columns, {reason}; {OPTION} the rows"
    )


def fits(columns: int, labels: Labels, keypoints: tuple[int, int] | None) -> bool:
    """Returns whether a row with this number of columns can be read as `labels`. Boxes may occur among polygons."""
    if labels == "boxes":
        return BOX <= columns <= TRACKED
    if labels == "polygons":
        return columns == BOX or (columns >= TRACKED and columns % 2 == 1)
    return columns == BOX + keypoints[0] * keypoints[1] if keypoints else columns > BOX


def row_object(
    row: Row, labels: Labels, keypoints: tuple[int, int] | None, classes: int, size: tuple[int, int]
) -> tuple[dict[str, Any], int]:
    """Returns the object that a row describes as a COCO annotation, and the number of columns that are left out.

    The annotation has the keys category_id, bbox (xywh, pixels), area (square pixels) and, for a polygon, segmentation.
    classes: the number of classes. size: (h, w) of the image, pixels. Raises RowError if the row describes no valid object.
    """
    try:
        label, values = float(row.columns[0]), [float(value) for value in row.columns[1:]]
    except ValueError:
        raise RowError(f"expected a class and coordinates as numbers, found {_shown(row)}") from None
    if not fits(len(row.columns), labels, keypoints):
        raise RowError(f"expected {_expected(labels, keypoints)}, found {len(row.columns)} columns: {_shown(row)}")
    coordinates = values if labels == "polygons" else values[: BOX - 1]
    if not all(map(math.isfinite, coordinates)):
        raise RowError(f"expected finite numbers, found {_shown(row)}")
    if not label.is_integer() or not 0 <= label < classes:
        raise RowError(f"expected a class from 0 to {classes - 1}, found {row.columns[0][:40]}", unknown_class=True)
    outline = _polygon(coordinates, size) if len(coordinates) >= BOX else _box(coordinates, size)
    if not all(map(math.isfinite, (*outline["bbox"], outline["area"]))):
        raise RowError(f"expected coordinates from 0 to 1, found {_shown(row)}")
    return {"category_id": int(label) + 1, **outline}, len(values) - len(coordinates)


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
    """Returns whether every row is a parallelogram, such as an upright or rotated rectangle, given by its four corners."""
    for row in rows:
        values = _numbers(row)
        if values is None or len(values) != 8:
            return False
        (x1, x2, x3, x4), (y1, y2, y3, y4) = values[0::2], values[1::2]
        if abs(x1 - x2 + x3 - x4) > 0.01 or abs(y1 - y2 + y3 - y4) > 0.01:
            return False
    return True


def _mostly_keypoints(rows: Sequence[Row]) -> bool:
    """Returns whether most rows can be a box inside the image followed by points inside the box, or at 0 if not labelled."""
    return sum(any(_has_keypoints(row, dimensions) for dimensions in (2, 3)) for row in rows) > POINTED * len(rows)


def _has_keypoints(row: Row, dimensions: int) -> bool:
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
