"""Keeps track of the owners, the processes that need the project's own Prefect server: each has a file with its identity.

Files are written and removed under a lock, and written atomically, so a process without the lock reads a whole file or none. A
file is removed only after its process has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from filelock import FileLock

from detr_core.atomic import write_text
from flows.profile.paths import SHARED
from flows.runtime import processes

FOLDER = SHARED / "server" / "owners"


@contextmanager
def lock() -> Iterator[None]:
    """Holds the lock: during the block no other process becomes an owner, or starts or stops a server."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER.parent / "lock"):
        yield


def register() -> None:
    """Makes this process an owner, and also the dvc that runs it, whose later stages need the server. Call it under `lock`."""
    _remove_dead()
    for process in {psutil.Process(), _outermost()}:
        write_text(FOLDER / str(process.pid), processes.identity(process.pid))


def exist() -> bool:
    """Returns whether at least one owner is alive. It can be called without `lock`."""
    return any(_lives(file.name) for file in FOLDER.glob("[0-9]*"))


def _remove_dead() -> None:
    for file in FOLDER.glob("[0-9]*"):
        if not _lives(file.name):
            (FOLDER / file.name).unlink(missing_ok=True)


def _lives(name: str) -> bool:
    try:
        return processes.lives((FOLDER / name).read_text(encoding="utf-8")) is True
    except OSError:  # it was removed meanwhile
        return False


def _outermost() -> psutil.Process:
    """Returns the outermost dvc that runs this process as a stage, or this process if there is no dvc."""
    process = psutil.Process()
    while "DVC_STAGE" in process.environ():
        parent = process.parent()
        if parent is None:
            break
        process = parent
    return process
