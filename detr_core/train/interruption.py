"""SIGINT and SIGTERM during a training: the step is finished and its state is saved before the process ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A training that a signal has interrupted, with its state saved. The message says after which step.

    signal: the number of that signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class StopRequest:
    """Whether this process was asked to stop. signal: the number of the signal that asked it to, None where none did."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._raises = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Notes the signal, as a handler of it."""
        self.signal = number
        if self._raises:
            self.check()

    def check(self) -> None:
        """Raises Interrupted where this process was asked to stop."""
        if self.signal is not None:
            raise Interrupted("interrupted", self.signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Around work after which nothing would be lost: there a signal raises Interrupted at once, as does one noted before."""
        self._raises = True
        try:
            self.check()
            yield
        finally:
            self._raises = False


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """While this is open, SIGINT and SIGTERM are noted in what it yields rather than ending the process.

    A signal that the process ignores stays ignored. Outside of the main thread, where Python has no handlers, none is noted.
    """
    request = StopRequest()
    earlier = {number: signal.getsignal(number) for number in SIGNALS} if _in_main_thread() else {}
    taken = {number: handler for number, handler in earlier.items() if handler not in (signal.SIG_IGN, None)}
    for number in taken:
        signal.signal(number, request.receive)
    try:
        yield request
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
