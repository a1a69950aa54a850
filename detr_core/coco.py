"""Provides the categories of COCO."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from detr_core.structures import Category


@cache
def coco_categories() -> dict[int, Category]:
    """Returns COCO's 80 categories of things and 53 of stuff, by id."""
    content = json.loads(Path(__file__).with_name("coco_categories.json").read_text(encoding="utf-8"))
    return {entry["id"]: Category(**entry) for entry in content}


def is_coco(categories: Iterable[Category]) -> bool:
    """Returns whether a dataset with these categories is COCO, which means that its things have COCO's 80 ids and names."""
    things = {(category.id, category.name) for category in categories if category.isthing}
    return things == {(category.id, category.name) for category in coco_categories().values() if category.isthing}
