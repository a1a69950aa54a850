"""Invalid values for every field of valid annotation files, for tests of the readers and of the data check."""

from __future__ import annotations

from typing import Any

ABSURD: list[Any] = [
    float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 2**63, -1, 0, 1.5, 10**30, True, None, "", "1", "a", "..",
    "../x.png",     "/etc/passwd", "a\0b", "\ud800", "x" * 5000, [], [1], {}, [[]], {"counts": "nonsense", "size": [12, 16]},
    {"counts": "o", "size": [12, 16]}, {"counts": [10**12], "size": [12, 16]}, {"counts": [-1, 193], "size": [12, 16]},
    {"counts": "04", "size": [10**9, 10**9]}, [[1e18, 0, 0, 1e18, 5, 5]], [[1, 2, 3, 4, 5, 6, 7]], [["1"] * 6],
]  # fmt: skip
FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "iscrowd", "segmentation"),
    "categories": ("id", "name"),
}


def sound() -> dict[str, Any]:
    square = [[2, 2, 8, 2, 8, 8, 2, 8]]
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 12, "width": 16} for n in (1, 2)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 3, "bbox": [2, 2, 6, 6], "iscrowd": 0, "segmentation": square} for n in (1, 2)
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }


def sound_panoptic() -> dict[str, Any]:
    segment = {"id": 300, "category_id": 3, "bbox": [0, 0, 5, 4], "iscrowd": 0}
    return {
        "images": sound()["images"],
        "annotations": [{"image_id": n, "file_name": f"{n}.png", "segments_info": [dict(segment)]} for n in (1, 2)],
        "categories": [{"id": 3, "name": "cat", "isthing": 1}],
    }


PANOPTIC_FIELDS = {
    "annotations": ("image_id", "file_name", "segments_info"),
    "segments": ("id", "category_id", "bbox", "iscrowd"),
}
PANOPTIC_CASES = [(section, field, value) for section, fields in PANOPTIC_FIELDS.items() for field in fields for value in ABSURD]

CASES = [(section, field, value) for section, fields in FIELDS.items() for field in fields for value in ABSURD]
TEXTS = [value for value in ABSURD if value == "a\0b" or (isinstance(value, str) and value.isprintable())]
SAME = {  # absurd values that change nothing
    ("annotations", "id"): [0, *TEXTS],  # some exporters write text
    ("annotations", "iscrowd"): [0],
    ("categories", "name"): [text for text in TEXTS if text.strip()],
    ("segments", "iscrowd"): [0],
}


def same(section: str, field: str) -> list[Any]:
    """Returns the absurd values that change nothing in a field."""
    return SAME.get((section, field), [])


def is_in(value: Any, values: list[Any]) -> bool:
    return repr(value) in map(repr, values)  # which tells True from 1, and knows nan
