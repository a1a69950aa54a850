"""A reporter with which a test sees the progress, the metrics and the messages of a computation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class RecordingReporter:
    """A reporter that stores everything it receives."""

    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    last_progress: tuple[int, int] = (0, 0)

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        self.last_progress = (done, total)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self.history.append((step, dict(values)))

    def message(self, text: str) -> None:
        self.messages.append(text)
