"""Determines the identity of a process. It is recorded with each run, and shows a later command whether the process has ended.

The operating system reuses process ids. Therefore an identity also holds the time at which the process started, and an identifier
of the machine and its namespace of process ids, so that processes of other machines and containers have other identities.
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
    """Returns an identifier, eight hexadecimal digits, of this machine and the namespace of process ids (as in a container)."""
    parts = [socket.gethostname()]
    if sys.platform == "linux":
        file = Path("/etc/machine-id")
        parts += [file.read_text(encoding="ascii") if file.is_file() else "", os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def identity(pid: int | None = None) -> str:
    """Returns the identity of a process, by default this one, such as `1f2e3d4c-4711-98765`: machine, process id, start.

    Raises psutil.NoSuchProcess if there is no such process.
    """
    number = os.getpid() if pid is None else pid
    return f"{machine()}-{number}-{_start(number)}"


def lives(identity_text: str) -> bool | None:
    """Returns whether the process with this identity is alive; None if it is on another machine or the text is no identity."""
    machine_id, _, rest = identity_text.partition("-")
    pid, _, start = rest.partition("-")
    if machine_id != machine() or not pid.isdigit():
        return None
    try:
        return _start(int(pid)) == start and psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def described() -> dict[str, str]:
    """Returns tags that describe this process: the machine's name, the process id, its start time, and its identity."""
    started = datetime.fromtimestamp(psutil.Process().create_time(), UTC).isoformat(timespec="seconds")
    return {
        "process.host": socket.gethostname(),
        "process.pid": str(os.getpid()),
        "process.started": started,
        "process": identity(),
    }


def _start(pid: int) -> str:
    # The time is in clock ticks since the machine started, which do not change when the machine's clock is corrected.
    if sys.platform != "linux":
        return str(round(psutil.Process(pid).create_time() * 1000))
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    return stat.rpartition(")")[2].split()[19]  # field 22; the split begins after the name, which may hold any character
