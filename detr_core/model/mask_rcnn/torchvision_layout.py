"""Reads and writes weights under the names of torchvision's Mask R-CNN; see `faster_rcnn/torchvision_layout.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detr_core.config import build
from detr_core.model.common.published import Shapes, agreed
from detr_core.model.faster_rcnn.torchvision_layout import Read, inferred, read, written
from detr_core.model.mask_rcnn.config import MaskRcnnConfig
from detr_core.model.mask_rcnn.model import MaskRcnn
from detr_core.structures import Category


def from_torchvision(content: Mapping[str, Any], file: str, dilation: bool | None) -> Read[MaskRcnn]:
    """Returns the detector, on the CPU, its categories, and the counters of its batch norms, as for Faster R-CNN."""

    def model(shapes: Shapes, told: Mapping[str, Any], classes: int) -> MaskRcnn:
        widths = [("roi_heads.mask_predictor.conv5_mask.weight", 1), ("roi_heads.mask_predictor.mask_fcn_logits.weight", 1)]
        fields = {"kind": "mask_rcnn", **inferred(shapes, told), "mask_width": agreed(shapes, widths, 256)}
        return MaskRcnn(build(MaskRcnnConfig, fields, "args"), classes)

    return read(content, file, "torchvision's Mask R-CNN", model)


def to_torchvision(model: MaskRcnn, categories: Sequence[Category], source: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Returns the content of a file of this layout, from which `from_torchvision` restores the same detector."""
    return written(model, categories, source, file, from_torchvision)
