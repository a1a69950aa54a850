"""Handles SIGINT and SIGTERM during a training: the step is finished and its state is saved before the process ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has interrupted a training, whose state is saved. The message says after which step.

    signal: the number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class StopRequest:
    """Records whether a signal has asked this process to stop. signal: the number of the signal, None without a signal."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._raises = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Records the signal. This method is a signal handler."""
        self.signal = number
        if self._raises:
            self.check()

    def check(self) -> None:
        """Raises Interrupted if a signal has asked this process to stop."""
        if self.signal is not None:
            raise Interrupted("interrupted", self.signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal, also an earlier one, raise Interrupted immediately in this block, whose interruption loses no state."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Yields a StopRequest that records SIGINT and SIGTERM during this block, so that they do not end the process.

    A signal that the process ignores stays ignored. Outside of the main thread, where Python allows no signal handlers, no signal
    is recorded.
    """
    request = StopRequest()
    earlier = {number: signal.getsignal(number) for number in SIGNALS} if _in_main_thread() else {}
    replaced = {number: handler for number, handler in earlier.items() if handler not in (signal.SIG_IGN, None)}
    for number in replaced:
        signal.signal(number, request.receive)
    try:
        yield request
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
