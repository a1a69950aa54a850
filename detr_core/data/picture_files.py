"""Which files of a folder are pictures, and how a file that is named in a text is found below the dataset's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from detr_core.data.dataset import DatasetError


def picture_files(folder: Path) -> Iterator[str]:
    """The names of the pictures in a folder and its subfolders, relative to it, with slashes, sorted.

    Files and folders of the system, such as `._a.jpg` and `__MACOSX`, are passed over. Links to folders are not followed.
    """
    endings = Image.registered_extensions()
    return (name for name in files_below(folder) if os.path.splitext(name)[1].lower() in endings)


def files_below(folder: Path) -> list[str]:
    """The names of all files in a folder and its subfolders, as `picture_files` gives them."""
    found: list[str] = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_foreign(name)]
        below = os.path.relpath(base, folder).replace(os.sep, "/")
        found += [name if below == "." else f"{below}/{name}" for name in names if not is_foreign(name)]
    return sorted(found)


def is_foreign(name: str) -> bool:
    """Whether a file or folder of this name is the system's, not the dataset's: hidden ones, a Mac's, or Windows'."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without white space around them. Raises DatasetError, which names the file."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected a text file in UTF-8 with a name a line: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def is_file(path: Path) -> bool:
    """Whether `path` is a file; False also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def below(root: Path, path: str) -> str | None:
    """`path` relative to `root`, with slashes, without links being followed; None where it is not inside of `root`."""
    inside = os.path.relpath(os.path.normpath(path), os.path.normpath(root)).replace(os.sep, "/")
    return None if inside == ".." or inside.startswith("../") else inside
