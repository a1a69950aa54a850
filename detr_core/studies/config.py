"""Configuration of the studies."""

from __future__ import annotations

from dataclasses import dataclass

from detr_core.config import require
from detr_core.data.config import ResizeConfig


@dataclass(frozen=True)
class DecoderNmsConfig:
    """Figure 4 of the paper: AP of every decoder layer, without NMS and with it.

    nms: IoU thresholds; null stands for no NMS. batch_size and resize as in evaluation.
    """

    nms: tuple[float | None, ...]
    batch_size: int
    resize: ResizeConfig | None

    def __post_init__(self) -> None:
        require(len(self.nms) > 0, "nms", "one or more thresholds", list(self.nms))
        require(len(set(self.nms)) == len(self.nms), "nms", "each threshold once", list(self.nms))
        for value in self.nms:
            require(value is None or 0 < value < 1, "nms", "null (off) or an IoU between 0 and 1", value)
        require(self.batch_size >= 1, "batch_size", "1 or more", self.batch_size)
