"""How training and evaluation tell of their progress, without knowing who listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Reporter(Protocol):
    """Who listens to a piece of work."""

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        """`done` of `total` units (steps, images) are done; `note` is short text such as 'loss 2.31'."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Named scalars (`train/loss`, `val/AP`) at an optimiser step."""

    def message(self, text: str) -> None:
        """One line for the log."""


class Silent:
    """Listens to nothing."""

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def message(self, text: str) -> None: ...


@dataclass
class Memory:
    """Remembers all it is told; for tests and notebooks."""

    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    last_progress: tuple[int, int] = (0, 0)

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        self.last_progress = (done, total)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.history.append((step, dict(values)))

    def message(self, text: str) -> None:
        self.messages.append(text)
