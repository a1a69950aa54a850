"""Reports that a file system can't store a result: the messages name the folder, the bytes needed and the bytes that are free."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detr_core.errors import ExpectedError

REFUSALS = {
    errno.ENOSPC: "no space is left on the file system",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the limit on the size of files",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.ENOTDIR: "a part of the path is a file and not a folder",
    errno.ENAMETOOLONG: "its name is too long for the file system",
    errno.ELOOP: "the path has too many links, or a link that leads to itself",
}
ABOUT_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageError(ExpectedError, OSError):
    """A file or folder cannot be written. The message names the path, the reason and, if space is short, the free space."""


def as_storage_error(error: OSError, path: Path | None = None, needed: int | None = None) -> StorageError | None:
    """Returns a StorageError for an error with which a file system refuses a write; None for every other error.

    path: the file to be written, if `error` does not name it: the system names a file that cannot be opened, but not a file
    that has no room for a write. needed: the number of bytes to be written, if known.
    """
    if isinstance(error, StorageError):
        return error
    number, name = _number_and_file(error)
    if number not in REFUSALS:
        return None
    path = Path(name) if name is not None else path
    name_in_message = str(path) if path is not None else "a result"
    if number not in ABOUT_SPACE:
        return StorageError(
            f"{name_in_message}: it cannot be read or written, because {REFUSALS[number]}; change that, and {_AGAIN}"
        )
    size = "" if needed is None else f"it needs {readable(needed)}, "
    space = _space([_existing(path)] if path is not None else _file_systems())
    return StorageError(
        f"{name_in_message}: it cannot be written, because {REFUSALS[number]}; {size}{space}; make room there, and {_AGAIN}"
    )


@contextmanager
def storage_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Raises StorageError if the file system refuses to write `path` in this block.

    needed: the number of bytes to be written, if known.
    """
    try:
        yield
    except OSError as error:
        expected = as_storage_error(error, path, needed)
        if expected is None:
            raise
        raise expected from error


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raises StorageError unless `folder`, which need not exist yet, can be written and has `needed` bytes free for `purpose`."""
    existing = _existing(folder)
    if not os.access(existing, os.W_OK):
        raise StorageError(
            f"{folder}: expected a folder that can be written, for {purpose}, found that {existing} is not writable"
        )
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(f"{folder}: expected {readable(needed)} free for {purpose}, found {readable(free)}; make room there")


def readable(size: int) -> str:
    """Formats a number of bytes for a person: '2.41 GB (2,411,724,800 bytes)'."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:.2f} {unit} ({size:,} bytes)"
    return f"{size} bytes"


_AGAIN = "run the command again"


def _number_and_file(error: OSError) -> tuple[int | None, str | None]:
    if error.errno is None and isinstance(error, shutil.Error):  # shutil.copytree collects (source, target, message) triples
        numbers = [(re.search(r"\[Errno (\d+)\]", str(reason)), target) for _, target, reason in error.args[0]]
        return next(((int(match[1]), str(target)) for match, target in numbers if match), (None, None))
    return error.errno, None if error.filename is None else os.fsdecode(error.filename)


def _space(folders: list[Path]) -> str:
    free = {folder: shutil.disk_usage(folder).free for folder in folders}
    emptiest = sorted(free, key=lambda folder: free[folder])[:3]
    return ", ".join(f"{readable(free[folder])} are free in {folder}" for folder in emptiest)


def _file_systems() -> list[Path]:
    """Returns one folder on each file system of the temporary folder, the working folder and its subfolders."""
    working_folder = Path.cwd()
    folders = [working_folder, Path(os.environ.get("TMPDIR", "/tmp")), *working_folder.glob("*/"), *working_folder.glob("*/*/")]
    by_device: dict[int, Path] = {}
    for folder in folders:
        with suppress(OSError):
            by_device.setdefault(folder.stat().st_dev, folder)
    return list(by_device.values())


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path
