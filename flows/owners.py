"""The processes that need the project's own Prefect server: one file each, with the process's identity.

Files are written and removed under a lock, and written atomically: whoever looks without the lock sees an owner or doesn't, but
never a part of one. Only a file whose process has ended is removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from filelock import FileLock

from detr_core.atomic import write_text
from flows import processes
from flows.paths import SHARED

FOLDER = SHARED / "server" / "owners"


@contextmanager
def lock() -> Iterator[None]:
    """Meanwhile no other process becomes an owner, or starts or ends a server."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER.parent / "lock"):
        yield


def register() -> None:
    """Makes owners of this process and of the dvc that runs it as a stage (others follow). To be called under the lock."""
    _remove_dead()
    for process in {psutil.Process(), _outermost()}:
        write_text(FOLDER / str(process.pid), processes.identity(process.pid))


def exist() -> bool:
    """Whether an owner lives. No lock is needed."""
    return any(_lives(file.name) for file in FOLDER.glob("[0-9]*"))


def _remove_dead() -> None:
    for file in FOLDER.glob("[0-9]*"):
        if not _lives(file.name):
            (FOLDER / file.name).unlink(missing_ok=True)


def _lives(name: str) -> bool:
    try:
        return processes.lives((FOLDER / name).read_text(encoding="utf-8")) is True
    except OSError:  # removed meanwhile
        return False


def _outermost() -> psutil.Process:
    """Whose end is the end of the need: the dvc that runs us as its stage (the outermost one), else this process."""
    process = psutil.Process()
    while "DVC_STAGE" in process.environ():
        parent = process.parent()
        if parent is None:
            break
        process = parent
    return process
