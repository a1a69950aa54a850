"""What only one command at a time may make: the others wait for it, and then find it made."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from detr_core.reporter import Reporter
from flows import paths

TELL = 15.0  # seconds between two lines, as between two of progress


@contextmanager
def alone(what: str, reporter: Reporter) -> Iterator[None]:
    """Meanwhile no other thread or process of this checkout that names the same `what` goes on. It is let go with the process."""
    folder = paths.STATE / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / hashlib.sha256(what.encode()).hexdigest()).open("w") as file:
        told = float("-inf")
        while not _taken(file.fileno()):
            if time.monotonic() - told >= TELL:
                told = time.monotonic()
                reporter.message("waits: another command or variant makes the same")
            time.sleep(0.2)
        yield


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
