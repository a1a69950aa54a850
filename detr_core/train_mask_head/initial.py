"""Provides the mask head that a training starts from: a new one, or the one of a checkpoint."""

from __future__ import annotations

import torch

from detr_core.config import ConfigError
from detr_core.model.common.detector import Detector
from detr_core.model.detr.model import Detr
from detr_core.model.detr.published import MASK_HEAD
from detr_core.train_mask_head.config import PanopticConfig


def mask_head_from(model: Detector, checkpoint_model: Detector) -> str:
    """Copies the mask head of `other`, which does not depend on the classes, into `model`. The detector is not changed.

    Returns a sentence for the log. Raises ConfigError, which names every weight that is missing or has another shape, or if the
    attention maps are of another kind.
    """
    weights, checkpoint_weights = (
        {name: value for name, value in detector.state_dict().items() if name.startswith(MASK_HEAD)}
        for detector in (model, checkpoint_model)
    )
    if not checkpoint_model.has_mask_head:
        raise ConfigError(f"train_panoptic.init: expected a checkpoint with a mask head, found no weight of {', '.join(weights)}")
    if checkpoint_model.attention_maps != model.attention_maps:
        expected = f"{checkpoint_model.attention_maps!r}, the value of the checkpoint that `init` names"
        raise ConfigError(f"train_panoptic.attention_maps: expected {expected}, found {model.attention_maps!r}")
    misshapen = [
        f"{name}: expected shape {list(weights[name].shape)} for this detector, found {list(checkpoint_weights[name].shape)}"
        for name in weights
        if weights[name].shape != checkpoint_weights[name].shape
    ]
    if misshapen:
        raise ConfigError(f"train_panoptic.init: the mask head does not fit this detector: {'; '.join(misshapen)}")
    model.load_state_dict(checkpoint_weights, strict=False)
    return f"all {len(checkpoint_weights)} weights of the mask head come from the checkpoint"


def with_mask_head(detector: Detr, config: PanopticConfig) -> Detr:
    """Returns the detector with a new mask head, whose weights for the attention maps are multiplied by `attention_gain`."""
    model = Detr(detector.config, detector.num_classes, mask_head=True, attention_maps=config.attention_maps)
    model.load_state_dict(detector.state_dict(), strict=False)
    with torch.no_grad():
        model.mask_head.lay1.weight[:, detector.config.width :] *= config.attention_gain
    return model
