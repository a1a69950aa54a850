"""Reads and writes DETR's checkpoints in the published format, which the authors' training code writes.

The names of the weights are those of `Detr`; with a mask head, the detector's weights have the prefix `detr.`. Values that
neither the weights nor the arguments show are assumed to be as published: 8 heads, positions and object queries at every
attention. `detr_core/model/transformer/published.py` says what such a file holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from detr_core.config import ConfigError, as_dict, build
from detr_core.model.common.config import BackboneConfig
from detr_core.model.common.files import CheckpointError
from detr_core.model.detr.config import DetrConfig, architecture
from detr_core.model.detr.model import Detr
from detr_core.model.transformer.config import PositionsConfig
from detr_core.model.transformer.published import (
    COCO_CLASSES,
    Shapes,
    agreed,
    arguments_of,
    categories_of,
    count,
    dilation_of,
    require_numbers,
    require_same,
    resnet_of,
    state_of,
)
from detr_core.structures import Category

MASK_HEAD = ("bbox_attention.", "mask_head.")  # prefixes of the names of its weights


def is_published(content: Any) -> bool:
    """Returns whether a checkpoint file's content is in the published format."""
    return isinstance(content, dict) and any(
        isinstance(key, str) and key.removeprefix("detr.").startswith("transformer.") for key in state_of(content)
    )


def from_published(content: Mapping[str, Any], file: str, dilation: bool | None) -> tuple[Detr, tuple[Category, ...]]:
    """Returns the detector, on the CPU, and its categories from the content of a published file.

    file: the name of the file for errors. dilation: whether it is a DC5 model, which its weights can't show; None takes it from
    the file's argument namespace, or False without a namespace.
    Raises CheckpointError, which names every weight that is missing, unknown or has another shape. It also raises the error if
    `dilation` contradicts the file, or if only the file's name says that it is a DC5 model.
    """
    state = state_of(content)
    require_numbers(state, file)
    mask_head = any(key.startswith(MASK_HEAD) for key in state)
    arguments = arguments_of(content)
    shapes = {key.removeprefix("detr."): tuple(value.shape) for key, value in state.items()}
    classes = agreed(shapes, [("class_embed.weight", 0), ("class_embed.bias", 0)], *(known + 1 for known in COCO_CLASSES)) - 1
    try:
        config = _inferred(shapes, mask_head, arguments, dilation_of(arguments, file, dilation))
        with torch.device("meta"):  # only names and shapes; the file's tensors are assigned later
            model = Detr(config, classes, mask_head)
        require_same(file, {name: tuple(value.shape) for name, value in published_state(model).items()}, state, "DETR")
        categories = categories_of(content, classes)
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: expected a detector that this version supports: {error}") from None
    names = zip(model.state_dict(), published_state(model), strict=True)
    model.load_state_dict({own_name: state[published_name].float() for own_name, published_name in names}, assign=True)
    return model, categories


def to_published(model: Detr, categories: Sequence[Category], file: str) -> dict[str, Any]:
    """Returns the content of a file in the published format, from which `from_published` restores the same detector.

    Beside the weights it has plain values that the weights don't show under 'args', and the categories, because this project's
    class indices are no category ids. The authors' code ignores both. Raises CheckpointError if the format does not support the
    detector.
    """
    config = model.config
    content = {
        "model": {name: value.detach().cpu() for name, value in published_state(model).items()},
        "args": {"dilation": config.backbone.dilation, "nheads": config.heads, "dropout": config.dropout},
        "categories": [asdict(category) for category in categories],
    }
    hint = "the published format supports DETR on a torchvision ResNet with frozen batch norm and heads shared by all layers"
    if not is_published(content):
        raise CheckpointError(f"{file}: {hint}")
    if model.has_mask_head and model.attention_maps != "published":
        raise CheckpointError(f"{file}: attention_maps {model.attention_maps!r} would be lost; {hint}")
    try:
        restored, _ = from_published(content, file, None)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {hint}") from None
    fields, restored_fields = architecture(config), architecture(restored.config)
    lost = [field for field in fields if fields[field] != restored_fields.get(field)]
    if lost:
        raise CheckpointError(f"{file}: {', '.join(f'{field} {fields[field]!r}' for field in lost)} would be lost; {hint}")
    return content


def published_state(model: Detr) -> dict[str, Tensor]:
    """Returns the model's weights with their published names, in the order of its own state dict."""
    prefix = "detr." if model.has_mask_head else ""
    return {key if key.startswith(MASK_HEAD) else prefix + key: value for key, value in model.state_dict().items()}


def _inferred(shapes: Shapes, mask_head: bool, arguments: Mapping[str, Any], dilation: bool) -> DetrConfig:
    axes = [("query_embed.weight", 1), ("input_proj.weight", 0), ("transformer.decoder.norm.weight", 0)]
    width = agreed(shapes, axes, 256)
    decoder_layers = count(shapes, r"transformer\.decoder\.layers\.(\d+)\.")
    hidden = [(f"transformer.decoder.layers.{layer}.linear1.bias", 0) for layer in range(decoder_layers)]
    heads = arguments.get("nheads", 8)
    if mask_head:  # its first convolution takes the image's features and one map per head
        first = [("mask_head.lay1.weight", 1), ("mask_head.lay1.bias", 0), ("mask_head.gn1.bias", 0)]
        heads = agreed(shapes, first, width + 8) - width
    kind, cells = (
        ("learned", shapes["backbone.1.row_embed.weight"][0]) if "backbone.1.row_embed.weight" in shapes else ("sine", 50)
    )
    return build(
        DetrConfig,
        {
            "kind": "detr",
            "backbone": as_dict(BackboneConfig(resnet_of(shapes), dilation, None, "frozen", 2)),  # type: ignore[arg-type]
            "positions": as_dict(PositionsConfig(kind, "attention", cells, "attention", 1)),  # type: ignore[arg-type]
            "width": width,
            "heads": heads,
            "feed_forward": agreed(shapes, hidden, 0),
            "encoder_layers": count(shapes, r"transformer\.encoder\.layers\.(\d+)\."),
            "decoder_layers": decoder_layers,
            "queries": agreed(shapes, [("query_embed.weight", 0)], 100),
            "dropout": arguments.get("dropout", 0.1),
            "pre_norm": "transformer.encoder.norm.weight" in shapes,
            "shared_heads": True,
        },
        "args",
    )
