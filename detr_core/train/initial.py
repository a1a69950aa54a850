"""Initialises a training: values of learned positions, and weights of a trained detector or mask head (fine-tuning)."""

from __future__ import annotations

import torch
from torch import nn

from detr_core.config import ConfigError
from detr_core.model.checkpoint import Checkpoint
from detr_core.model.common.detector import Detector
from detr_core.structures import Category
from detr_core.wording import counted


def draw_positions(model: nn.Module, std: float) -> None:
    """Initialises learned positions with a normal distribution. A model without learned positions is not changed."""
    from detr_core.model.transformer.position import LearnedPositions  # only here: not all kinds have positions

    for module in model.modules():
        if isinstance(module, LearnedPositions):
            nn.init.normal_(module.row_embed.weight, std=std)
            nn.init.normal_(module.col_embed.weight, std=std)


def start_from(model: Detector, categories: tuple[Category, ...], checkpoint: Checkpoint) -> str:
    """Copies the weights of the checkpoint's detector into `model`, which detects `categories`. It copies no mask head.

    If `categories` are the checkpoint's categories in any order, the class head is copied by category; otherwise the class head
    of `model` keeps its initial weights. Returns a sentence for the log.
    Raises ConfigError, which names every differing field, if the two detectors are of different kinds or have different
    architectures.
    """
    _require_same_architecture(model, checkpoint.model)
    state = {name: value for name, value in checkpoint.model.state_dict().items() if name in model.state_dict()}
    rows = _class_rows(categories, checkpoint)
    for name in [name for name in state if name.startswith(model.class_heads)]:
        weight = model.class_weight(name, state.pop(name), rows)
        if weight is not None:
            state[name] = weight
    model.load_state_dict(state, strict=False)
    class_count = sum(category.used for category in checkpoint.categories)
    earlier_classes = counted(class_count, "class", "classes")
    if rows is None:
        classes = counted(len(categories), "class", "classes")
        return f"the class head is new, for {classes}; all other weights come from the checkpoint, which had {earlier_classes}"
    return f"all weights come from the checkpoint; the class head keeps its {earlier_classes}"


def _class_rows(categories: tuple[Category, ...], checkpoint: Checkpoint) -> torch.Tensor | None:
    row_of = {category: row for row, category in enumerate(checkpoint.categories) if category.used}
    if set(categories) != set(row_of):
        return None
    return torch.tensor([row_of[category] for category in categories])


def _require_same_architecture(model: Detector, checkpoint_model: Detector) -> None:
    fields, checkpoint_fields = {"kind": model.config.kind}, {"kind": checkpoint_model.config.kind}
    if fields == checkpoint_fields:
        fields, checkpoint_fields = model.architecture(), checkpoint_model.architecture()
    differing = [
        f"detector.{field}: expected {checkpoint_fields.get(field)!r}, the value of the checkpoint that `init` names, "
        f"found {fields.get(field)!r}"
        for field in sorted(fields.keys() | checkpoint_fields.keys())
        if fields.get(field) != checkpoint_fields.get(field)
    ]
    if differing:
        remedy = "give the section `detector` the checkpoint's architecture, as `flows.adopt` does"
        raise ConfigError("; ".join([*differing, remedy]))
