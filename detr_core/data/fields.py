"""Reads COCO's annotation files field by field. A value of the wrong type is refused and never converted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from detr_core.data.config import LARGEST_SIDE
from detr_core.data.splits import DatasetError

V = TypeVar("V")

LARGEST_SEGMENT = 256**3 - 1  # largest id of a panoptic segment, three bytes of a pixel; 0 means no segment


def read_content(file: Path) -> dict[str, Any]:
    """Returns the JSON object of an annotation file. `images`, `annotations` and `categories` are lists of unchecked entries.

    Raises DatasetError for a file that is missing, can't be read, isn't JSON or lacks one of the lists.
    """
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{file}: expected an annotation file, found no such file") from None
    except OSError as error:
        raise DatasetError(f"{file}: expected an annotation file, found one that can't be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: expected an object with lists `images`, `annotations` and `categories`, found another value")
    for field in ("images", "annotations", "categories"):
        if not isinstance(content.get(field), list):
            found = "none" if field not in content else "a value of another type"
            raise DatasetError(f"{file}: {field}: expected a list, found {found}")
    return content


def checked(file: Path, field: str, read: Callable[[], V]) -> V:
    """Returns the result of `read`. If `read` fails at an entry, raises DatasetError, which names the file and the field."""
    try:
        return read()
    except KeyError as error:
        raise DatasetError(f"{file}: {field}: expected {error}, found an entry without it") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetError(f"{file}: {field}: malformed entry: {error}") from None


def whole(value: Any) -> int:
    """Returns an id as a whole number of 0 or more; 7.0 is accepted, because some exporters write it. Raises ValueError."""
    if type(value) not in (int, float) or not 0 <= value < 2**53 or value != int(value):
        raise ValueError(f"expected a whole number of 0 or more, found {value!r:.60}")
    return int(value)


def annotation_id(value: Any) -> int | str:
    """Returns the id of an annotation, a whole number or, from some exporters, a text; 7 and "7" differ. Raises ValueError."""
    return text(value) if isinstance(value, str) else whole(value)


def side(value: Any) -> int:
    """Returns the height or width of an image in pixels. Raises ValueError."""
    if not 1 <= (pixels := whole(value)) <= LARGEST_SIDE:
        raise ValueError(f"expected a side of 1 to {LARGEST_SIDE:,} pixels, found {value!r}")
    return pixels


def farthest(size: tuple[int, int]) -> int:
    """Returns the largest absolute coordinate that a polygon's point may have in an image of `size` (h, w), pixels.

    There is a limit because the decoder, which is written in C, walks every edge pixel by pixel.
    """
    return 4 * max(size)


def segment_id(value: Any) -> int:
    """Returns the id of a panoptic segment. Raises ValueError."""
    if not 1 <= (number := whole(value)) <= LARGEST_SEGMENT:
        raise ValueError(f"expected a segment's id of 1 to {LARGEST_SEGMENT:,}, found {value!r}")
    return number


def text(value: Any) -> str:
    """Returns a text that can be encoded. Raises ValueError."""
    if type(value) is not str:
        raise ValueError(f"expected text, found {value!r:.60}")
    value.encode()  # a lone surrogate of a broken escape can't be encoded
    return str(value)


def flag(value: Any) -> bool:
    """Returns 0 or 1, false or true as a bool. Raises ValueError."""
    if type(value) not in (int, bool, float) or value not in (0, 1):
        raise ValueError(f"expected 0 or 1, found {value!r:.60}")
    return bool(value)


def _name(category: dict[str, Any]) -> str:
    """Returns the name of a category. Raises ValueError for a blank name, because scores are listed by name."""
    if not (name := text(category["name"])).strip():
        raise ValueError(f"expected a name for the category with id {category['id']!r:.60}, found {name!r}")
    return name


def category_list(entries: list[dict[str, Any]]) -> list[tuple[int, str, bool]]:
    """Returns (id, name, whether it is a thing) of each category, sorted by id.

    Raises ValueError, KeyError, TypeError or AttributeError, which `checked` turns into a DatasetError.
    """
    for entry in entries:
        if not isinstance(entry, dict) or not {"id", "name"} <= set(entry):
            raise ValueError(f"expected an object with `id` and `name`, found {entry!r:.60}")
    categories = sorted((whole(entry["id"]), _name(entry), flag(entry.get("isthing", 1))) for entry in entries)
    if len({number for number, _, _ in categories}) < len(categories):
        raise ValueError("expected every id once, found one twice")
    return categories
