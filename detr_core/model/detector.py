"""Builds a detector of any kind from its configuration. Each kind has its own type of output (see structures.py)."""

from __future__ import annotations

from detr_core.model.config import AnyDetectorConfig
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.deformable.model import DeformableDetr
from detr_core.model.detr.config import DetectorConfig
from detr_core.model.detr.model import Detr
from detr_core.model.faster_rcnn.model import FasterRcnn

# Each kind has the attributes `config`, `num_classes`, `has_mask_head` and `backbone[0]`; it maps (images, padding) to an output.
Detector = Detr | DeformableDetr | FasterRcnn


def build_detector(config: AnyDetectorConfig, num_classes: int) -> Detector:
    """Returns a new detector for `num_classes` classes. A DETR has no mask head."""
    if isinstance(config, DetectorConfig):
        return Detr(config, num_classes, mask_head=False)
    if isinstance(config, DeformableConfig):
        return DeformableDetr(config, num_classes)
    return FasterRcnn(config, num_classes)
