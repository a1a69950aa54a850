"""Provides the locks between the commands of one checkout: only one command at a time builds a result, and others wait."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from detr_core.directories import atomic_directory
from flows.profile import paths

SECONDS_BEFORE_MESSAGE = 0.5  # by then a process that has just taken the lock has written its process id
SECONDS_BETWEEN_MESSAGES = 15.0


@contextmanager
def exclusive(*results: Path | str, tell: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock on each of `results` during its block: no other thread or process of this checkout holds these locks then.

    results: the folders that are built, or names for results that are no folders. Locks are taken in the order of their names, so
    that two commands never wait for each other. A thread that holds a lock may take it again. The operating system releases the
    locks of a process that ends, however it ends. tell: called with a message while this process waits for another holder of a
    lock.
    """
    names = {str(_resolved(result)) if isinstance(result, Path) else result: result for result in results}
    with ExitStack() as stack:
        for name in sorted(names):
            lock = _lock(name)
            _acquire(lock, names[name], tell)
            stack.callback(lock.release)
            # Some versions of filelock empty the file while they wait; then the waiting message leaves the process id out.
            Path(lock.lock_file).write_text(str(os.getpid()), encoding="ascii")
        yield


@contextmanager
def building(result: Path, tell: Callable[[str], None]) -> Iterator[Path]:
    """Yields a temporary folder that replaces the folder `result` when the block ends without an error, under its lock.

    The messages and errors are those of `exclusive` and `atomic_directory`.
    """
    with exclusive(result, tell=tell), atomic_directory(result) as folder:
        yield folder


def _acquire(lock: FileLock, result: Path | str, tell: Callable[[str], None]) -> None:
    timeout = SECONDS_BEFORE_MESSAGE
    while True:
        try:
            lock.acquire(timeout=timeout, poll_interval=0.2)
        except Timeout:
            timeout = SECONDS_BETWEEN_MESSAGES
            where = f": {paths.relative(result)}" if isinstance(result, Path) else ""
            tell(f"waiting for another {_holder(lock)} that is building this result{where}")
        else:
            return


def _holder(lock: FileLock) -> str:
    try:
        pid = int(Path(lock.lock_file).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return "process"
    return "thread of this process" if pid == os.getpid() else f"process (pid {pid})"


def _lock(name: str) -> FileLock:
    folder = paths.STATE / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    # One object for each file makes the lock reentrant, and each thread counts its own holds.
    return FileLock(folder / hashlib.sha256(name.encode()).hexdigest(), thread_local=True, is_singleton=True)


def _resolved(folder: Path) -> Path:
    """Returns `folder` with the links above it resolved; if `folder` itself is a link, it stays, because it may be replaced."""
    return folder.parent.resolve() / folder.name
