"""Checks where a command writes that has the option --out, so that it replaces nothing and does not fail after its work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from detr_core.config import ConfigError
from flows.runtime.locks import exclusive

LONGEST_NAME = 200  # bytes; file systems allow 255, and a temporary folder beside a result has a longer name


def empty_folder(folder: Path) -> Path:
    """Returns the absolute path of a folder for a command's results.

    Raises ConfigError if it exists and is not empty, or can't be made there.
    """
    _require_usable(folder)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"--out {folder}: expected a new or an empty folder, found a file or a folder with content; name another folder"
        )
    return folder.resolve()  # a link to an empty folder stays, and the folder that it points to gets the results


@contextmanager
def only_writer(folder: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of `folder`, a result of `empty_folder`, during its block.

    Another command with the same folder waits, and then raises the ConfigError of `empty_folder`.
    """
    with exclusive(folder, tell=tell):
        empty_folder(folder)  # again, because another command may have written to it in the meantime
        yield


def new_file(file: Path) -> Path:
    """Returns the absolute path of a file for a command's result. Raises ConfigError if it exists or can't be made there."""
    _require_usable(file)
    if os.path.lexists(file):
        raise ConfigError(
            f"--out {file}: expected the name of a new file, found an existing file; name another file, or delete this one"
        )
    return file.absolute()


def _require_usable(path: Path) -> None:
    """Raises ConfigError if no file or folder can be made at this path, which the command line has as --out."""
    length = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if length > LONGEST_NAME:
        raise ConfigError(
            f"--out {path}: expected names of at most {LONGEST_NAME} bytes, found one of {length}; choose shorter ones"
        )
    existing = path.absolute().parent
    while not os.path.lexists(existing):
        existing = existing.parent
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        problem = "a folder that can't be written" if existing.is_dir() else "a file"
        raise ConfigError(
            f"--out {path}: expected a folder that can be written at {existing}, found {problem}; name another path"
        )
