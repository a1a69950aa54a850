"""Reads the results of a stage."""

from __future__ import annotations

import json
from pathlib import Path

from detr_core.directories import MARK


def content_of(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def file_names(folder: Path) -> set[str]:
    """Returns the names of the files in a result, without its mark."""
    return {path.name for path in folder.iterdir()} - {MARK}
