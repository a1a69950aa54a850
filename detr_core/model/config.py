"""Configuration of the detector: DETR, Deformable DETR or Faster R-CNN."""

from __future__ import annotations

from typing import Any, cast

from detr_core.config import build
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.detr.config import DetectorConfig
from detr_core.model.faster_rcnn.config import FasterRcnnConfig

AnyDetectorConfig = DetectorConfig | DeformableConfig | FasterRcnnConfig


def detector_config(value: object, where: str) -> AnyDetectorConfig:
    """Returns the configuration of the kind of detector in the mapping `value`. Raises ConfigError as `build` does."""
    return cast(AnyDetectorConfig, build(cast(Any, AnyDetectorConfig), value, where))
