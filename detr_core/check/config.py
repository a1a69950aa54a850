"""Configuration of the data check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.config import require


@dataclass(frozen=True)
class CheckConfig:
    """mode: what is broken stops everything (`strict`) or is left out and counted (`lenient`).

    pictures: how many of the worst are shown of each kind of finding.
    """

    mode: Literal["strict", "lenient"]
    pictures: int

    def __post_init__(self) -> None:
        require(self.pictures >= 0, "pictures", "0 or more", self.pictures)
