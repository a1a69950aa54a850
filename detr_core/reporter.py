"""Defines the interface through which training and evaluation report their progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Reporter(Protocol):
    """Receives the progress, the metrics and the messages of a running computation."""

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        """Receives the progress: `done` of `total` units (steps, images). `note` is a short text such as 'loss 2.31'."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Receives named scalars (`train/loss`, `val/AP`) at an optimizer step."""

    def message(self, text: str) -> None:
        """Receives one line for the log."""


class Silent:
    """A reporter that ignores everything."""

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def message(self, text: str) -> None: ...
