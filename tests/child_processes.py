"""Helpers for tests that start processes: they wait for a condition, read a line, and see whether a process has ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import psutil


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Waits until the condition holds, and returns whether it does at the end of that time."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def first_line(process: subprocess.Popen[str]) -> str:
    """Waits for the first line that a process prints, and returns it."""
    assert process.stdout is not None
    return process.stdout.readline().strip()
