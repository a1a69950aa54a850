"""Reads and writes checkpoints in the published format, which the authors' training code writes.

A file holds {'model': state dict, ...}, or only the state dict. The names of the weights are those of `Detr`; with a mask head,
the detector's weights have the prefix `detr.`. The file has no configuration: it is inferred from names and shapes, and from the
argument namespace if there is one. Other values are assumed to be as published: 8 heads, positions and object queries at every
attention. A class index is the category id of the data: with 91 classes COCO's things, with 250 classes COCO's things and
stuff.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_core.coco import coco_categories
from detr_core.config import ConfigError, as_dict, build
from detr_core.model.common.config import BackboneConfig, PositionsConfig
from detr_core.model.common.files import CheckpointError, PlainArguments
from detr_core.model.detr.config import DetrConfig, architecture
from detr_core.model.detr.model import Detr
from detr_core.structures import Category

COCO_CLASSES = (91, 250)  # of the published detectors and panoptic models: COCO's highest category id + 1, or more
MASK_HEAD = ("bbox_attention.", "mask_head.")  # prefixes of the names of its weights

# name -> (number of blocks of each stage, whether they are bottlenecks of three convolutions)
_RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}

Shapes = Mapping[str, tuple[int, ...]]


def is_published(content: Any) -> bool:
    """Returns whether a checkpoint file's content is in the published format."""
    return isinstance(content, dict) and any(
        isinstance(key, str) and key.removeprefix("detr.").startswith("transformer.") for key in _state(content)
    )


def from_published(content: Mapping[str, Any], file: str, dilation: bool | None) -> tuple[Detr, tuple[Category, ...]]:
    """Returns the detector, on the CPU, and its categories from the content of a published file.

    file: the name of the file for errors. dilation: whether it is a DC5 model, which its weights can't show; None takes it from
    the file's argument namespace, or False without a namespace.
    Raises CheckpointError, which names every weight that is missing, unknown or has another shape. It also raises the error if
    `dilation` contradicts the file, or if only the file's name says that it is a DC5 model.
    """
    state = _state(content)
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            actual = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(f"{file}: {key}: expected a tensor of floating point numbers, found {actual}")
    mask_head = any(key.startswith(MASK_HEAD) for key in state)
    arguments = _arguments(content)
    shapes = {key.removeprefix("detr."): tuple(value.shape) for key, value in state.items()}
    classes = _agreed(shapes, [("class_embed.weight", 0), ("class_embed.bias", 0)], *(count + 1 for count in COCO_CLASSES)) - 1
    try:
        config = _inferred(shapes, mask_head, arguments, _dilation(arguments, file, dilation))
        with torch.device("meta"):  # only names and shapes; the file's tensors are assigned later
            model = Detr(config, classes, mask_head)
        _require_same(file, {name: tuple(value.shape) for name, value in published_state(model).items()}, state)
        categories = _categories(content.get("categories"), classes)
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


def _state(content: Mapping[str, Any]) -> Mapping[str, Any]:
    state = content.get("model", content)
    return state if isinstance(state, Mapping) else {}


def _arguments(content: Mapping[str, Any]) -> Mapping[str, Any]:
    arguments = content.get("args") if "model" in content else None
    if isinstance(arguments, PlainArguments):
        return arguments.values
    return arguments if isinstance(arguments, Mapping) else {}


def _dilation(arguments: Mapping[str, Any], file: str, request: bool | None) -> bool:
    file_value = arguments.get("dilation")
    if request is not None:
        if isinstance(file_value, bool) and file_value != request:
            raise CheckpointError(f"{file}: args.dilation: expected {request}, as requested, found {file_value}")
        return request
    if file_value is None and "dc5" in Path(file).name.lower():
        raise CheckpointError(
            f"{file}: its name contains DC5, but its weights don't show dilation and the file has no args.dilation; "
            "say whether it is one (`--dilation` or `--no-dilation`)"
        )
    return bool(file_value)


def _inferred(shapes: Shapes, mask_head: bool, arguments: Mapping[str, Any], dilation: bool) -> DetrConfig:
    places = [("query_embed.weight", 1), ("input_proj.weight", 0), ("transformer.decoder.norm.weight", 0)]
    width = _agreed(shapes, places, 256)
    decoder_layers = _count(shapes, r"transformer\.decoder\.layers\.(\d+)\.")
    hidden = [(f"transformer.decoder.layers.{layer}.linear1.bias", 0) for layer in range(decoder_layers)]
    heads = arguments.get("nheads", 8)
    if mask_head:  # its first convolution takes the image's features and one map per head
        first = [("mask_head.lay1.weight", 1), ("mask_head.lay1.bias", 0), ("mask_head.gn1.bias", 0)]
        heads = _agreed(shapes, first, width + 8) - width
    kind, cells = (
        ("learned", shapes["backbone.1.row_embed.weight"][0]) if "backbone.1.row_embed.weight" in shapes else ("sine", 50)
    )
    return build(
        DetrConfig,
        {
            "kind": "detr",
            "backbone": as_dict(BackboneConfig(_resnet(shapes), dilation, None, "frozen", 2)),  # type: ignore[arg-type]
            "positions": as_dict(PositionsConfig(kind, "attention", cells, "attention", 1)),  # type: ignore[arg-type]
            "width": width,
            "heads": heads,
            "feed_forward": _agreed(shapes, hidden, 0),
            "encoder_layers": _count(shapes, r"transformer\.encoder\.layers\.(\d+)\."),
            "decoder_layers": decoder_layers,
            "queries": _agreed(shapes, [("query_embed.weight", 0)], 100),
            "dropout": arguments.get("dropout", 0.1),
            "pre_norm": "transformer.encoder.norm.weight" in shapes,
            "shared_heads": True,
        },
        "args",
    )


def _resnet(shapes: Shapes) -> str:
    # Returns the most similar ResNet. Differing weights are listed in a later error.
    blocks = [_count(shapes, rf"backbone\.0\.body\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
    bottlenecks = any(re.match(r"backbone\.0\.body\.layer\d\.\d+\.conv3\.", key) for key in shapes)

    def distance(name: str) -> tuple[bool, int]:
        expected, with_bottlenecks = _RESNETS[name]
        return bottlenecks != with_bottlenecks, sum(abs(a - b) for a, b in zip(blocks, expected, strict=True))

    return min(_RESNETS, key=distance)


def _count(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def _agreed(shapes: Shapes, places: Sequence[tuple[str, int]], *published: int) -> int:
    # Returns a length that the shapes of several weights give, by majority, so that one wrong shape does not decide. Without a
    # majority it is one of the published lengths, by default the first.
    lengths = Counter(shapes[key][axis] for key, axis in places if len(shapes.get(key, ())) > axis)
    likely = [length for length, votes in lengths.items() if votes == max(lengths.values())]
    if len(likely) == 1:
        return likely[0]
    return next((length for length in published if length in likely), published[0])


def _require_same(file: str, expected: Shapes, state: Mapping[str, Tensor]) -> None:
    problems = []
    if missing := [key for key in expected if key not in state]:
        problems.append(f"missing {', '.join(missing)}")
    if unknown := [key for key in state if key not in expected]:
        problems.append(f"unknown {', '.join(unknown)}")
    for key, shape in expected.items():
        if key in state and tuple(state[key].shape) != shape:
            problems.append(f"{key}: expected shape {list(shape)}, found {list(state[key].shape)}")
    if problems:
        raise CheckpointError(f"{file}: the weights are not those of a published DETR: {'; '.join(problems)}")


def _categories(entries: Any, classes: int) -> tuple[Category, ...]:
    if entries is not None:
        categories = tuple(_category(entry) for entry in entries)
        if len(categories) != classes:
            raise ConfigError(f"categories: expected {classes}, the number of classes of the class head, found {len(categories)}")
        return categories
    if classes not in COCO_CLASSES:  # trained on other data, whose category names are not in the file
        return tuple(Category(index, "", True) for index in range(classes))
    coco = coco_categories()
    return tuple(coco.get(index, Category(index, f"unused {index}", False, used=False)) for index in range(classes))


def _category(entry: Any) -> Category:
    return Category(int(entry["id"]), str(entry["name"]), bool(entry["isthing"]), bool(entry.get("used", True)))
