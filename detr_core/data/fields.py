"""COCO's annotation files field by field, strictly: what isn't of the kind that it should be is refused, never taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from detr_core.data.dataset import DatasetError

V = TypeVar("V")

LARGEST_SIDE = 65_535  # pixels of an image, as many as a JPEG has at most; more is a slip of whoever wrote the file
LARGEST_SEGMENT = 256**3 - 1  # the id of a panoptic segment, three bytes of a pixel; 0 is what no segment covers


def read_content(file: Path) -> dict[str, Any]:
    """The annotation file as JSON has it: lists `images`, `annotations` and `categories`, their entries unchecked.

    Raises DatasetError for a file that is missing, isn't JSON or lacks one of the lists.
    """
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DatasetError(f"{file}: expected an annotation file, found no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: not valid JSON: {error}") from None
    for field in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(field), list):
            raise DatasetError(f"{file}: {field}: expected a list, found {'none' if field not in content else 'something else'}")
    return dict(content)


def checked(file: Path, field: str, read: Callable[[], V]) -> V:
    """What `read` finds in `field` of the file. Raises DatasetError, which names both, where it stumbles over an entry."""
    try:
        return read()
    except KeyError as error:
        raise DatasetError(f"{file}: {field}: expected {error}, found an entry without it") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DatasetError(f"{file}: {field}: malformed entry: {error}") from None


def whole(value: Any) -> int:
    """A whole number from 0, as ids are; some write 7.0. Raises ValueError."""
    if type(value) not in (int, float) or not 0 <= value < 2**53 or value != int(value):
        raise ValueError(f"expected a whole number from 0, found {value!r:.60}")
    return int(value)


def annotation_id(value: Any) -> int | str:
    """The id of an annotation: a whole number or a text, as some exporters write it; 7 and "7" are two ids. Raises ValueError."""
    return text(value) if isinstance(value, str) else whole(value)


def side(value: Any) -> int:
    """Height or width of an image, pixels. Raises ValueError."""
    if not 1 <= (found := whole(value)) <= LARGEST_SIDE:
        raise ValueError(f"expected a side of 1 to {LARGEST_SIDE:,} pixels, found {value!r}")
    return found


def farthest(size: tuple[int, int]) -> int:
    """How far from 0 a point of a polygon may be in an image of `size` (h, w): the decoder, C, walks every edge by the pixel."""
    return 4 * max(size)


def segment_id(value: Any) -> int:
    """The id of a panoptic segment. Raises ValueError."""
    if not 1 <= (found := whole(value)) <= LARGEST_SEGMENT:
        raise ValueError(f"expected a segment's id of 1 to {LARGEST_SEGMENT:,}, found {value!r}")
    return found


def text(value: Any) -> str:
    """Text that can be written. Raises ValueError."""
    if type(value) is not str:
        raise ValueError(f"expected text, found {value!r:.60}")
    value.encode()  # half a character of a broken escape can't be
    return str(value)


def flag(value: Any) -> bool:
    """0 or 1, false or true. Raises ValueError."""
    if type(value) not in (int, bool, float) or value not in (0, 1):
        raise ValueError(f"expected 0 or 1, found {value!r:.60}")
    return bool(value)


def category_list(entries: list[dict[str, Any]]) -> list[tuple[int, str, bool]]:
    """(id, name, whether it is a thing) of each category, sorted by id.

    Raises ValueError, KeyError, TypeError or AttributeError, of which `checked` makes a DatasetError.
    """
    for entry in entries:
        if not isinstance(entry, dict) or not {"id", "name"} <= set(entry):
            raise ValueError(f"expected an object with `id` and `name`, found {entry!r:.60}")
    found = sorted((whole(entry["id"]), text(entry["name"]), flag(entry.get("isthing", 1))) for entry in entries)
    if len({number for number, _, _ in found}) < len(found):
        raise ValueError("expected every id once, found one twice")
    return found
