"""Multi-scale testing: averages the semantic segmentation of images over several sizes and their mirror images.

Boxes and masks are those of the one size. UPSNet (arXiv 1901.03784) has the same published mask AP with and without multi-scale
testing, 34.3 in Table 5 of the paper of DETR, which suggests that its authors averaged the semantic segmentation alone.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from detr_core.evaluate.config import MultiScaleConfig
from detr_core.model.common.backbone import Backbone
from detr_core.model.common.detector import Detector
from detr_core.structures import AnyOutput, Padding, RegionOutput


def detected(model: Detector, images: Tensor, padding: Padding, config: MultiScaleConfig | None) -> AnyOutput:
    """Returns the detector's output for images [B, 3, H, W], normalised and zero on padding.

    config: see EvaluateConfig; None for one size.
    """
    output: AnyOutput = model(images, padding)
    if config is None:
        return output
    assert isinstance(output, RegionOutput)  # `require_evaluation_fits` has checked it
    assert output.semantic is not None
    return replace(output, semantic=_averaged(model, output.semantic, images, config))


def _averaged(model: Detector, semantic: Tensor, images: Tensor, config: MultiScaleConfig) -> Tensor:
    # Returns the mean of the semantic logits, at the size of `semantic`, which are those of the one size.
    backbone = model.backbone[0]
    assert isinstance(backbone, Backbone)
    stride = backbone.strides[-1]
    size = (semantic.shape[-2], semantic.shape[-1])
    total = torch.zeros_like(semantic)
    for scale in config.scales:
        # The strides divide these sizes, so that the cells of a mirror image's maps are those of the image, in reverse.
        height, width = (max(1, round(side * scale / stride)) * stride for side in images.shape[-2:])
        scaled = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
        total += semantic if scale == 1 else _at(size, model.semantic_logits(scaled))
        if config.flip:
            total += _at(size, model.semantic_logits(scaled.flip(-1)).flip(-1))
    return total / (len(config.scales) * (2 if config.flip else 1))


def _at(size: tuple[int, int], logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
