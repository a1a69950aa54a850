"""Lists the image files of a folder, and finds files below a dataset's folder by the names in a list."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from detr_core.data.splits import DatasetError
from detr_core.wording import counted


def picture_files(folder: Path) -> Iterator[str]:
    """Yields the sorted names of the image files in a folder and its subfolders, relative to the folder, with slashes.

    Files and folders of the operating system, such as `._a.jpg` and `__MACOSX`, are ignored. Links to folders are not followed.
    """
    endings = Image.registered_extensions()
    return (name for name in files_below(folder) if os.path.splitext(name)[1].lower() in endings)


def files_below(folder: Path) -> list[str]:
    """Returns the names of all files in a folder and its subfolders, in the form that `picture_files` describes."""
    files: list[str] = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_foreign(name)]
        below = os.path.relpath(base, folder).replace(os.sep, "/")
        files += [name if below == "." else f"{below}/{name}" for name in names if not is_foreign(name)]
    return sorted(files)


def is_foreign(name: str) -> bool:
    """Returns whether a file or folder with this name is hidden or belongs to macOS or Windows, and not to the dataset."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file without surrounding white space and without blank lines. Raises DatasetError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: expected a text file in UTF-8 with one name per line: {error}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def is_file(path: Path) -> bool:
    """Returns whether `path` is a file. It returns False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def below(root: Path, path: str) -> str | None:
    """Returns `path` relative to `root`, with slashes and without following links; None if it lies outside of `root`."""
    inside = os.path.relpath(os.path.normpath(path), os.path.normpath(root)).replace(os.sep, "/")
    return None if inside == ".." or inside.startswith("../") else inside


def missing_note(split: str, missing: Sequence[str], total: int) -> list[str]:
    """Returns a line if images are missing. missing: their paths below the dataset's folder. total: the number of all images."""
    verb = "is" if len(missing) == 1 else "are"
    return [f"{split}: {len(missing):,} of {counted(total, 'image')} {verb} missing, such as {missing[0]}"] if missing else []
