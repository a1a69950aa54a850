"""Waits for a server that was just started as long as the server makes progress, however slow the machine is at the moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from detr_core.errors import ExpectedError
from flows.profile.paths import relative

LONGEST = 1200.0  # seconds that a start may take in all
WITHOUT_PROGRESS = 120.0  # seconds in which neither the server's log nor its processor time grows
SECONDS_BETWEEN_MESSAGES = 15.0


class ServerError(ExpectedError, RuntimeError):
    """A server did not start. The message names its log."""


def wait_until_ready(name: str, ready: Callable[[], bool], pid: int, log: Path) -> None:
    """Waits until `ready()` is true, and prints a message every few seconds while it waits. name: the server's name in messages.

    pid: the server's process. Raises ServerError if that process has ended, makes no progress, or takes longer than LONGEST.
    """
    start = last_message = last_progress = time.monotonic()
    state = _state(pid, log)
    while not ready():
        now, earlier_state, state = time.monotonic(), state, _state(pid, log)
        if state is None:
            raise ServerError(f"expected {name} to start, found that its process has ended; see its log {relative(log)}")
        if state != earlier_state:
            last_progress = now
        if now - last_progress > WITHOUT_PROGRESS or now - start > LONGEST:
            raise ServerError(
                f"expected an answer from {name}, found none {now - start:.0f} s after its start; see its log {relative(log)}"
            )
        if now - last_message > SECONDS_BETWEEN_MESSAGES:
            last_message = now
            print(f"waiting for {name} to start ({now - start:.0f} s so far); its log is {relative(log)}", file=sys.stderr)
        time.sleep(0.2)


def _state(pid: int, log: Path) -> tuple[int, float] | None:
    """Returns the size of the log and the processor time of the process and its children; None if the process has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        seconds = 0.0
        for member in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                seconds += sum(member.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return None
    return log.stat().st_size if log.exists() else 0, round(seconds, 1)
