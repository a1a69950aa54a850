"""Reads and writes Deformable DETR's checkpoints in the published format, which the authors' training code writes.

Its names differ from those of `DeformableDetr`: the transformer's weights have the prefix `transformer.`, the first two norms of
a decoder layer are numbered the other way round, and a head that several modules share is written once for each of them. Values
that neither the weights nor the arguments show are assumed to be as published: 8 heads, and 300 queries of a two-stage detector.
`detr_core/model/transformer/published.py` says what such a file holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.deformable.model import DeformableDetr
from detr_core.model.transformer.published import COCO_CLASSES, arguments_of, categories_of, dilation_of, state_of
from detr_core.structures import Category

HINT = "the layout supports Deformable DETR on a ResNet with frozen batch norm, with post-norm and encoded cell centres"

# The beginning of a name of `DeformableDetr`, as a pattern, and that of the published name.
_PREFIXES = (
    (r"encoder\.", "transformer.encoder.layers."),
    (r"decoder\.(\d+)\.norm1\.", r"transformer.decoder.layers.\1.norm2."),
    (r"decoder\.(\d+)\.norm2\.", r"transformer.decoder.layers.\1.norm1."),
    (r"decoder\.", "transformer.decoder.layers."),
    (r"(level_embed|reference_points)", r"transformer.\1"),
    (r"proposals\.memory", "transformer.enc_output"),
    (r"proposals\.queries", "transformer.pos_trans"),
)


def from_published(content: Mapping[str, Any], file: str, dilation: bool | None) -> tuple[DeformableDetr, tuple[Category, ...]]:
    """Returns the detector, on the CPU, and its categories from the content of a published file.

    file: the name of the file for errors. dilation: whether it is a DC5 model, see `dilation_of`.
    Raises CheckpointError, which names every weight that is missing, unknown, has another shape, or differs from another name of
    the same weight. It also raises the errors of `dilation_of`.
    """
    state = state_of(content)
    require_numbers(state, file)
    arguments = arguments_of(content, file)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    classes = agreed(shapes, [("class_embed.0.weight", 0), ("class_embed.0.bias", 0)], *COCO_CLASSES)
    try:
        require_classes(classes)
        config = inferred(shapes, arguments, dilation_of(arguments, file, dilation))
        with torch.device("meta"):  # only names and shapes; the file's tensors are assigned later
            model = DeformableDetr(config, classes)
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: not supported by this version: {error}") from None
    require_same(file, published_state(model), state, "a published Deformable DETR")
    names = {name: published_names(name, config) for name in model.state_dict()}
    for first, *others in names.values():
        for other in others:
            if not torch.equal(state[other], state[first]):
                raise CheckpointError(f"{file}: {other}: expected the values of {first}, which is the same weight, found others")
    model.load_state_dict({ours: state[published[0]].float() for ours, published in names.items()}, assign=True)
    return model, categories_of(content.get("categories"), classes, file)


def to_published(model: DeformableDetr, categories: Sequence[Category], file: str) -> dict[str, Any]:
    """Returns the content of a file in the published format, from which `from_published` restores the same detector.

    Raises CheckpointError if the format does not support the detector.
    """
    state = {name: value.detach().cpu() for name, value in published_state(model).items()}
    content = {"model": state, **plain_values(model, categories)}
    require_kept(model, content, file, from_published, HINT)
    return content


def plain_values(model: DeformableDetr, categories: Sequence[Category]) -> dict[str, Any]:
    """Returns what a file of this project has beside the weights, because these do not show it."""
    config = model.config
    arguments = {"dilation": config.backbone.dilation, "nheads": config.heads, "num_queries": config.queries}
    return {
        "args": arguments | {"dropout": config.dropout},
        "categories": [asdict(category) for category in categories],
    }


def published_state(model: DeformableDetr) -> dict[str, Tensor]:
    """Returns the model's weights with their published names."""
    state = model.state_dict()
    return {published: value for name, value in state.items() for published in published_names(name, model.config)}


def published_names(name: str, config: DeformableConfig) -> list[str]:
    """Returns the published names of a weight of `DeformableDetr`. A weight that several modules share has several."""
    head, _, rest = name.partition(".")
    if head in ("class_embed", "bbox_embed"):
        if not config.refine:  # all decoder layers share one head
            return [f"{head}.{layer}.{rest.partition('.')[2]}" for layer in range(config.decoder_layers)]
        in_decoder = config.two_stage or head == "bbox_embed"  # the authors' decoder holds the heads that it applies itself
        return [name, f"transformer.decoder.{name}"] if in_decoder else [name]
    for ours, published in _PREFIXES:
        if re.match(ours, name):
            return [re.sub(ours, published, name, count=1)]
    return [name]


def inferred(shapes: Shapes, arguments: Mapping[str, Any], dilation: bool) -> DeformableConfig:
    """Returns the configuration for weights with these published names and shapes, and these arguments of their training."""
    width = agreed(shapes, [("input_proj.0.0.weight", 0), ("input_proj.0.0.bias", 0), ("transformer.level_embed", 1)], 256)
    levels = agreed(shapes, [("transformer.level_embed", 0)], count(shapes, r"input_proj\.(\d+)\."))
    kernels = [shapes.get(f"input_proj.{level}.0.weight", ()) for level in range(levels)]
    stages = max(1, min(4, sum(shape[2:] == (1, 1) for shape in kernels)))  # other levels come from a larger convolution
    encoder, decoder = (count(shapes, rf"transformer\.{part}coder\.layers\.(\d+)\.") for part in ("en", "de"))
    layers = [f"transformer.encoder.layers.{layer}" for layer in range(encoder)]
    layers += [f"transformer.decoder.layers.{layer}" for layer in range(decoder)]
    heads = arguments.get("nheads", 8)
    sampled = agreed(
        shapes,
        [(f"{layer}.{attention}.attention_weights.bias", 0) for layer in layers for attention in ("self_attn", "cross_attn")],
        4 * levels * heads,
    )
    two_stage = any(key.startswith("transformer.enc_output") for key in shapes)
    return build(
        DeformableConfig,
        {
            "kind": "deformable",
            "backbone": as_dict(BackboneConfig(resnet_of(shapes), dilation, None, "frozen", 2)),  # type: ignore[arg-type]
            "stages": list(range(5 - stages, 5)),
            "levels": levels,
            "points": sampled // max(1, levels * heads),
            "width": width,
            "heads": heads,
            "feed_forward": agreed(shapes, [(f"{layer}.linear1.bias", 0) for layer in layers], 0),
            "encoder_layers": encoder,
            "decoder_layers": decoder,
            "queries": agreed(shapes, [("query_embed.weight", 0)], arguments.get("num_queries", 300)),
            "dropout": arguments.get("dropout", 0.1),
            "pre_norm": False,
            "refine": two_stage or any(key.startswith("transformer.decoder.bbox_embed.") for key in shapes),
            "two_stage": two_stage,
            "encoded_point": "center",
        },
        "args",
    )
