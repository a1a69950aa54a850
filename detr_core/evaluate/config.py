"""Configuration of evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detr_core.config import require
from detr_core.data.config import ResizeConfig


@dataclass(frozen=True)
class MergingConfig:
    """From masks to one panoptic map (section 4.4 of the paper).

    threshold: queries below this score are dropped. smallest: segments of so many pixels or fewer are dropped.
    mode: `official` merges stuff as the released code does (which undoes itself when a small segment is then removed),
    `paper` really merges it.
    """

    threshold: float
    smallest: int
    mode: Literal["official", "paper"]

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, "threshold", "a score between 0 and 1", self.threshold)
        require(self.smallest >= 0, "smallest", "0 or more pixels", self.smallest)


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluation of the val split. resize: null leaves images as they are. batch_size: images of one size a forward pass.

    empty_slot_override: where no-object wins, score the second-best class (section 4.1).
    """

    batch_size: int
    resize: ResizeConfig | None
    empty_slot_override: bool
    panoptic: MergingConfig

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)
