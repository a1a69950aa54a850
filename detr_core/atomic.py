"""Writes files and folders atomically: a reader sees the earlier content of a file or the new one, never a part of either."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detr_core.storage import storage_errors


@contextmanager
def atomic_file(path: Path, needed: int | None = None, flush: bool = True) -> Iterator[Path]:
    """Yields the path of an empty temporary file beside `path`, which replaces `path` when the block ends without an error.

    Each writer gets a temporary file of its own, so two writers at once never mix their bytes: the last one to finish wins.
    The bytes are on disk before the file gets its name, unless `flush` is false: a writer of many files flushes all of them at
    once afterwards. If the block raises, the temporary file is removed and `path` is left as it was. The folder of `path` is
    created where it does not exist.
    needed: the number of bytes that will be written, if known, for the message about a full disk. Raises StorageError if the file
    system refuses the file.
    """
    with storage_errors(path, needed), _replacement(path, flush) as temporary:
        yield temporary


@contextmanager
def _replacement(path: Path, flush: bool) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        if flush:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o666 & ~umask())  # mkstemp creates a file that only its owner can read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_new_file(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file of the same name, which becomes `path` when the block ends without an error.

    Raises FileExistsError if `path` exists by then: nothing is replaced, also if somebody made the file during the block. Raises
    StorageError if the file system refuses the file. The folder of `path` is created where it does not exist.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".tmp", dir=path.parent) as folder:
            temporary = Path(folder) / path.name
            yield temporary
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links; the name is taken first, so that no other file is replaced
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                temporary.replace(path)


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files that writers of `path` left when they were killed. No writer of `path` may be running."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` atomically, as UTF-8."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def umask() -> int:
    """Returns the bits that new files of this process do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
