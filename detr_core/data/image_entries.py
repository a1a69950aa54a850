"""The entries of `images` in a COCO file, completed from the image files where an exporter has left something out."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from detr_core.data import fields
from detr_core.data.dataset import DatasetError, below_root
from detr_core.data.images import upright_size

SIZE_READ = "size_read_from_file"  # true in an entry whose width and height are the file's, not the annotation file's


def completed(entries: list[Any], folder: Path) -> list[Any]:
    """The entries with `width` and `height` of the image file in `folder` where they have none that can be right, marked so.

    A name that only another spelling of it finds, see `present_name`, is written so. An entry that needs neither, or whose file
    can't be read, is the same object as before.
    """
    return [_completed(entry, folder) if isinstance(entry, dict) else entry for entry in entries]


def _completed(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    name = entry.get("file_name")
    sized = _is_side(entry.get("width")) and _is_side(entry.get("height"))
    if not isinstance(name, str) or (sized and name.isascii() and "\\" not in name):
        return entry
    present = present_name(folder, name)
    if present is not None and present != name:
        entry = entry | {"file_name": present}
    file = None if present is None else folder / present
    if sized or file is None:
        return entry
    try:
        height, width = upright_size(file)
        fields.side(height), fields.side(width)
    except (DatasetError, ValueError):
        return entry  # the check says what is wrong with the file
    return entry | {"width": width, "height": height, SIZE_READ: True}


def _is_side(value: Any) -> bool:
    try:
        fields.side(value)
    except ValueError:
        return False
    return True


def present_name(folder: Path, name: Any) -> str | None:
    """The spelling of an image's name by which a file below `folder` is found; None where there is no such file.

    The name as it is goes first. Others have slashes for the backslashes of Windows, or accents as a Mac writes them: the
    letter and the accent as two characters where others write one.
    """
    if not isinstance(name, str):
        return None
    slashed = name.replace("\\", "/")
    spellings = [name, slashed, *(unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))]
    return next((spelling for spelling in dict.fromkeys(spellings) if image_file(folder, spelling) is not None), None)


def image_file(folder: Path, name: Any) -> Path | None:
    """The file of that name below `folder`; None where there is none, or the name is none that may be used."""
    if not isinstance(name, str):
        return None
    try:
        file = below_root(folder, name, "file_name")
        return file if file.is_file() else None
    except (DatasetError, OSError, ValueError):  # a name that leaves the folder, is too long or holds a null character
        return None
