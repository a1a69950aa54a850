"""Completes the entries of `images` in a COCO file from the image files, if an exporter has left something out."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from detr_core.data import fields
from detr_core.data.images import upright_size
from detr_core.data.splits import DatasetError, below_root

SIZE_READ = "size_read_from_file"  # true in an entry whose width and height come from the image file


def completed(entries: list[Any], folder: Path) -> list[Any]:
    """Returns the entries. Invalid or missing `width` and `height` are replaced by the size of the image file in `folder`.

    Such an entry has the field SIZE_READ. A file name that exists only in another spelling (see `present_name`) is replaced by
    that spelling. An entry without such a change, or whose file can't be read, is returned as the same object.
    """
    return [_completed(entry, folder) if isinstance(entry, dict) else entry for entry in entries]


def _completed(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    name = entry.get("file_name")
    has_size = _is_side(entry.get("width")) and _is_side(entry.get("height"))
    if not isinstance(name, str) or (has_size and name.isascii() and "\\" not in name):
        return entry
    spelling = present_name(folder, name)
    if spelling is not None and spelling != name:
        entry = entry | {"file_name": spelling}
    file = None if spelling is None else folder / spelling
    if has_size or file is None:
        return entry
    try:
        height, width = upright_size(file)
        fields.side(height), fields.side(width)
    except (DatasetError, ValueError):
        return entry  # the data check reports the fault of the file
    return entry | {"width": width, "height": height, SIZE_READ: True}


def _is_side(value: Any) -> bool:
    try:
        fields.side(value)
    except ValueError:
        return False
    return True


def present_name(folder: Path, name: Any) -> str | None:
    """Returns the spelling of an image's name that exists as a file below `folder`; None if there is no such file.

    The unchanged name is tried first. The other spellings replace the backslashes of Windows by slashes, and write accented
    letters as one character (NFC) or as two (NFD, as on a Mac).
    """
    if not isinstance(name, str):
        return None
    slashed = name.replace("\\", "/")
    spellings = [name, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    return next((spelling for spelling in dict.fromkeys(spellings) if image_file(folder, spelling) is not None), None)


def image_file(folder: Path, name: Any) -> Path | None:
    """Returns the path of the file `name` below `folder`; None if there is no such file or the name is not allowed."""
    if not isinstance(name, str):
        return None
    try:
        file = below_root(folder, name, "file_name")
        return file if file.is_file() else None
    except (DatasetError, OSError, ValueError):  # a name that leaves the folder, is too long or holds a null character
        return None
