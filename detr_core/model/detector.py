"""The kinds of detector, behind one way to build them; what they say of a batch is theirs (see structures.py)."""

from __future__ import annotations

from detr_core.model.config import AnyDetectorConfig, DeformableConfig, DetectorConfig
from detr_core.model.deformable import DeformableDetr
from detr_core.model.detr import Detr
from detr_core.model.faster_rcnn import FasterRcnn

# Each has `config`, `num_classes` and `has_mask_head`, its network in `backbone[0]`, and maps (images, padding) to its output.
Detector = Detr | DeformableDetr | FasterRcnn


def build_detector(config: AnyDetectorConfig, num_classes: int) -> Detector:
    """A new detector of `num_classes` classes, as its configuration says; a DETR without mask head."""
    if isinstance(config, DetectorConfig):
        return Detr(config, num_classes, mask_head=False)
    if isinstance(config, DeformableConfig):
        return DeformableDetr(config, num_classes)
    return FasterRcnn(config, num_classes)
