"""Defines the configuration of the data check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.config import require


@dataclass(frozen=True)
class CheckConfig:
    """Configures the data check.

    mode: broken data stops the check (`strict`), or is left out and counted (`lenient`). pictures: the number of examples that
    the report shows for each kind of finding. value_range: the values [low, high] that become 0 and 255 in images of more than
    8 bits per value; null takes the range of the dataset, which the check determines. 8-bit images are not changed.
    """

    mode: Literal["strict", "lenient"]
    pictures: int
    value_range: tuple[float, float] | None

    def __post_init__(self) -> None:
        require(self.pictures >= 0, "pictures", "0 or more", self.pictures)
        limits = self.value_range
        require(limits is None or limits[0] < limits[1], "value_range", "null or two values, the smaller first", limits)
