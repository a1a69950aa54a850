"""Reads and writes DETR's checkpoints in the published format, which the authors' training code writes.

The names of the weights are those of `Detr`; with a mask head, the detector's weights have the prefix `detr.`. Values that
neither the weights nor the arguments show are assumed to be as published: 8 heads, positions and object queries at every
attention. `detr_core/model/transformer/published.py` says what such a file holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from detr_core.config import ConfigError, as_dict, build
from detr_core.model.common.config import BackboneConfig
from detr_core.model.common.files import CheckpointError
from detr_core.model.common.inferred import (
    Shapes,
    agreed,
    count,
    require_classes,
    require_kept,
    require_numbers,
    require_same,
    resnet_of,
)
from detr_core.model.common.weight_names import Names
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.model.transformer.config import PositionsConfig
from detr_core.model.transformer.published import COCO_CLASSES, arguments_of, categories_of, dilation_of, state_of
from detr_core.structures import Category

MASK_HEAD = ("bbox_attention.", "mask_head.")  # prefixes of the names of its weights


def from_published(content: Mapping[str, Any], file: str, dilation: bool | None) -> tuple[Detr, tuple[Category, ...]]:
    """Returns the detector, on the CPU, and its categories from the content of a published file.

    file: the name of the file for errors. dilation: whether it is a DC5 model, which its weights can't show; None takes it from
    the file's argument namespace, or False without a namespace.
    Raises CheckpointError, which names every weight that is missing, unknown or has another shape. It also raises the error if
    `dilation` contradicts the file, or if only the file's name says that it is a DC5 model.
    """
    state, arguments = state_of(content), arguments_of(content, file)
    arguments = {**arguments, "dilation": dilation_of(arguments, file, dilation)}
    names, title = published_names(has_mask_head(state)), "a published DETR"
    model = detector_from(state, names, arguments, file, title)
    return model, categories_of(content.get("categories"), model.num_classes, file)


def detector_from(state: Mapping[str, Any], names: Names, arguments: Mapping[str, Any], file: str, title: str) -> Detr:
    """Returns the detector with the weights `state`, on the CPU. Raises the errors of `from_published`.

    names: what the weights are called. arguments: values that the weights don't show, as in the published argument namespace;
    those that it lacks are assumed to be as published. title: the detector that the weights should belong to, for an error.
    """
    require_numbers(state, file)
    mask_head = has_mask_head(state)
    shapes = names.our_shapes(state)
    classes = agreed(shapes, [("class_embed.weight", 0), ("class_embed.bias", 0)], *(number + 1 for number in COCO_CLASSES)) - 1
    try:
        require_classes(classes)
        config = _inferred(shapes, mask_head, arguments)
        with torch.device("meta"):  # only names and shapes; the file's tensors are assigned later
            model = Detr(config, classes, mask_head)
        require_same(file, names.theirs(model.state_dict()), state, title)
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: not supported by this version: {error}") from None
    weights = names.ours(state)
    model.load_state_dict({name: weights[name].float() for name in model.state_dict()}, assign=True)
    return model


def to_published(model: Detr, categories: Sequence[Category], file: str) -> dict[str, Any]:
    """Returns the content of a file in the published format, from which `from_published` restores the same detector.

    Beside the weights it has plain values that the weights don't show under 'args', and the categories, because this project's
    class indices are no category ids. The authors' code ignores both. Raises CheckpointError if the format does not support the
    detector.
    """
    hint = "the published format supports DETR on a torchvision ResNet with frozen batch norm and heads shared by all layers"
    names = published_names(model.has_mask_head)
    return exported(model, categories, names, from_published, file, hint)


def exported(
    model: Detr,
    categories: Sequence[Category],
    names: Names,
    read: Callable[[Mapping[str, Any], str, bool | None], tuple[Any, ...]],
    file: str,
    hint: str,
) -> dict[str, Any]:
    """Returns the content of a file in a layout for DETR: the weights, and as plain values what they don't show.

    names: what the layout calls the weights. read: reads the content again. hint: which detectors the layout supports. Raises
    CheckpointError, with the hint, if a value of the detector would be lost.
    """
    config = model.config
    content = {
        "model": {name: value.detach().cpu() for name, value in names.theirs(model.state_dict()).items()},
        "args": {"dilation": config.backbone.dilation, "nheads": config.heads, "dropout": config.dropout},
        "categories": [asdict(category) for category in categories],
    }
    if model.has_mask_head and model.attention_maps != "published":
        raise CheckpointError(f"{file}: attention_maps {model.attention_maps!r} would be lost; {hint}")
    require_kept(model, content, file, read, hint)
    return content


def published_state(model: Detr) -> dict[str, Tensor]:
    """Returns the model's weights with their published names, in the order of its own state dict."""
    return published_names(model.has_mask_head).theirs(model.state_dict())


def published_names(mask_head: bool) -> Names:
    """Returns the published names of the weights, which equal ours, except for a prefix in a detector with a mask head."""
    return Names([*((prefix, prefix) for prefix in MASK_HEAD), ("", "detr.")] if mask_head else [])


def has_mask_head(state: Mapping[str, Any]) -> bool:
    return any(str(key).startswith(MASK_HEAD) for key in state)


def _inferred(shapes: Shapes, mask_head: bool, arguments: Mapping[str, Any]) -> DetrConfig:
    axes = [("query_embed.weight", 1), ("input_proj.weight", 0), ("transformer.decoder.norm.weight", 0)]
    width = agreed(shapes, axes, 256)
    decoder_layers = count(shapes, r"transformer\.decoder\.layers\.(\d+)\.")
    hidden = [(f"transformer.decoder.layers.{layer}.linear1.bias", 0) for layer in range(decoder_layers)]
    heads = arguments.get("nheads", 8)
    if mask_head:  # its first convolution takes the image's features and one map per head
        first = [("mask_head.lay1.weight", 1), ("mask_head.lay1.bias", 0), ("mask_head.gn1.bias", 0)]
        heads = agreed(shapes, first, width + 8) - width
    cells = agreed(shapes, [("backbone.1.row_embed.weight", 0)], 50)
    kind = "learned" if "backbone.1.row_embed.weight" in shapes else "sine"
    return build(
        DetrConfig,
        {
            "kind": "detr",
            "backbone": as_dict(BackboneConfig(resnet_of(shapes), arguments["dilation"], None, "frozen", 2)),  # type: ignore[arg-type]
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
