"""Which process did something: an identity that is recorded with each run, and by which a later command sees that it has ended.

A process id alone is used again by later processes, so the identity also has the process's start, and a mark of the machine
(with its namespace of process ids): nothing is ever said of a process of another machine or container.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil


def machine() -> str:
    """A mark of this machine and, in a container, of its own process ids: eight hexadecimal digits."""
    parts = [socket.gethostname()]
    if sys.platform == "linux":
        file = Path("/etc/machine-id")
        parts += [file.read_text(encoding="ascii") if file.is_file() else "", os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def identity(pid: int | None = None) -> str:
    """The identity of a process, by default this one, such as `1f2e3d4c-4711-98765`: machine, process id, start.

    Raises psutil.NoSuchProcess where there is no such process.
    """
    number = os.getpid() if pid is None else pid
    return f"{machine()}-{number}-{_start(number)}"


def lives(known: str) -> bool | None:
    """Whether the process of this identity lives; None where it was one of another machine, or the text is no identity."""
    where, _, rest = known.partition("-")
    pid, _, start = rest.partition("-")
    if where != machine() or not pid.isdigit():
        return None
    try:
        return _start(int(pid)) == start and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def described() -> dict[str, str]:
    """This process as tags of a run: its machine's name, its number, its start as people read it, and its identity."""
    started = datetime.fromtimestamp(psutil.Process().create_time(), UTC).isoformat(timespec="seconds")
    return {
        "process.host": socket.gethostname(),
        "process.pid": str(os.getpid()),
        "process.started": started,
        "process": identity(),
    }


def _start(pid: int) -> str:
    # In ticks since the machine started: a time of day changes for a process that runs when the clock is corrected.
    if sys.platform != "linux":
        return str(round(psutil.Process(pid).create_time() * 1000))
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    return stat.rpartition(")")[2].split()[19]  # after the name, which may have anything in it: the file's field 22
