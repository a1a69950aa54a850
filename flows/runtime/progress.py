"""Shows the progress of a stage: as a live bar on a terminal, else as a log line every few seconds, which Prefect stores."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from detr_core.reporter import Reporter

SECONDS_BETWEEN_LINES = 15.0


class Tee:
    """A Reporter that passes every event on to several Reporters."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        for reporter in self._reporters:
            reporter.progress(done, total, images_per_second, note)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        for reporter in self._reporters:
            reporter.metrics(values, step)

    def message(self, text: str) -> None:
        for reporter in self._reporters:
            reporter.message(text)


class Lines:
    """A Reporter for logs. It prints progress every SECONDS_BETWEEN_LINES, and validation metrics and messages at once."""

    def __init__(self, label: str, write: Callable[[str], None]) -> None:
        self._label = label
        self._print = write
        self._total = self._done = -1
        self._start = self._last_line = (0, 0.0)  # pairs of a number of finished images and a time

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        now = time.monotonic()
        if total != self._total or done < self._done:  # a new pass over images begins
            self._start, self._last_line = (done, now), (done, float("-inf"))
        self._total, self._done = total, done
        if now - self._last_line[1] >= SECONDS_BETWEEN_LINES or done == total != self._last_line[0]:
            self._last_line = (done, now)
            speed = (done - self._start[0]) / max(now - self._start[1], 1e-9)
            time_left = f", {_clock((total - done) / speed)} left" if speed > 0 and done < total else ""
            rate = f", {images_per_second:.0f} images/s" if images_per_second > 0 else ""
            self._print(f"{self._label}: {done}/{total}{rate}{f', {note}' if note else ''}{time_left}")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if metrics := _validation(values):
            self._print(f"{self._label}: step {step}: {metrics}")

    def message(self, text: str) -> None:
        self._print(f"{self._label}: {text}")


class Bar:
    """A Reporter for terminals: one live bar with images/s, a note such as the loss, and the time left."""

    def __init__(self, label: str, display: Progress, write: Callable[[str], None]) -> None:
        self._display = display
        self._print = write
        self._task = display.add_task(label, total=None, rate="", note="")
        self._total = self._done = -1

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        if total != self._total or done < self._done:
            self._display.reset(self._task, total=total, completed=done)
        self._total, self._done = total, done
        rate = f"{images_per_second:.0f} images/s" if images_per_second > 0 else ""
        self._display.update(self._task, completed=done, rate=rate, note=note)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if metrics := _validation(values):
            self._print(f"step {step}: {metrics}")

    def message(self, text: str) -> None:
        self._print(text)


@contextmanager
def reporter(label: str) -> Iterator[Reporter]:
    """Yields the Reporter that shows the progress of the block: a Bar if stdout is a terminal, else Lines."""
    write = _log()
    if not sys.stdout.isatty():
        yield Lines(label, write)
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[rate]}", "{task.fields[note]}")
    display = Progress(
        *(TextColumn(column) if isinstance(column, str) else column for column in columns),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with display, _logging_above(display):
        yield Bar(label, display, write)


def _log() -> Callable[[str], None]:
    if "prefect" not in sys.modules:
        return print  # Prefect takes seconds to import, and a process that has not imported it runs no flow
    from prefect import get_run_logger
    from prefect.exceptions import MissingContextError

    try:
        return get_run_logger().info
    except MissingContextError:
        return print  # outside of a flow run


@contextmanager
def _logging_above(display: Progress) -> Iterator[None]:
    """Prints Prefect's log lines above the bar during the block, so that they do not break the bar."""
    handlers = [handler for handler in logging.getLogger().handlers if hasattr(handler, "console")]
    consoles = [handler.console for handler in handlers]
    for handler in handlers:
        handler.console = display.console
    try:
        yield
    finally:
        for handler, console in zip(handlers, consoles, strict=True):
            handler.console = console


def _validation(values: Mapping[str, float]) -> str:
    metrics = [f"{name} {value:.3f}" for name, value in values.items() if name.startswith("val/")]
    return ", ".join(metrics[:3])  # the first three are AP, AP50 and AP75; MLflow gets all of them


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
