"""Reads and writes Deformable DETR's weights under the names of Hugging Face's library `transformers`.

Several names of the library stand for one weight: the heads of all decoder layers without box refinement, and a head beside the
copy in the decoder. A file has some of these names or all of them, which depends on the version of the library. What the weights
don't show comes from the file itself, if this project has written it, else from config.json beside it, else it is as published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_core.config import ConfigError
from detr_core.model.common.files import CheckpointError
from detr_core.model.common.inferred import agreed, count, require_classes, require_kept, require_numbers, require_same
from detr_core.model.common.weight_names import Names
from detr_core.model.deformable.model import DeformableDetr
from detr_core.model.deformable.published import HINT, inferred, plain_values, published_names
from detr_core.model.transformer.hugging_face import (
    BACKBONE,
    BackboneLibrary,
    attention_heads,
    backbone_library,
    backbone_names,
    class_names,
    configuration,
    require_agreement,
    require_saved_names,
    require_transformer_agreement,
)
from detr_core.model.transformer.published import COCO_CLASSES, arguments_of, categories_of, dilation_of
from detr_core.structures import Category

TITLE = "a Deformable DETR of Hugging Face's transformers"
_HEAD = re.compile(r"(model\.decoder\.)?((?:class|bbox)_embed)\.(\d+)\.(.+)")
_LAYERS = [("linear1.", "fc1."), ("linear2.", "fc2.")]
_NORMS = {
    "encoder": {"norm1.": "self_attn_layer_norm.", "norm2.": "final_layer_norm."},
    "decoder": {"norm1.": "encoder_attn_layer_norm.", "norm2.": "self_attn_layer_norm.", "norm3.": "final_layer_norm."},
}


def from_hugging_face(
    content: Mapping[str, Any], file: str, dilation: bool | None
) -> tuple[DeformableDetr, tuple[Category, ...], dict[str, Any]]:
    """Returns the detector, on the CPU, its categories, and as plain values the names that the file has.

    content: that of a file of this layout. file: its path. dilation: see `dilation_of`. Raises CheckpointError, which names every
    weight that is missing, unknown, has another shape, or differs from another name of the same weight.
    """
    state = content["model"]
    require_numbers(state, file)
    require_saved_names(state, file)
    own = arguments_of(content, file)
    beside = {} if "nheads" in own else configuration(file, "deformable_detr")  # of other files, also those with other arguments
    arguments = _arguments(beside, file) | own
    library = backbone_library(state)
    names = _names(library)
    refine = arguments.get("with_box_refine", False) or _refines(state)
    single = _with_single_names(state, refine, file)
    shapes = names.our_shapes(single)
    if refine:  # which a published name shows
        shapes["transformer.decoder.bbox_embed.0.layers.0.bias"] = ()
    classes = agreed(shapes, [("class_embed.0.weight", 0), ("class_embed.0.bias", 0)], *COCO_CLASSES)
    path = Path(file)  # the published files have the same name, in a folder with the name of the model
    dilated = dilation_of(arguments, file, dilation, f"{path.parent.name}/{path.name}")
    try:
        require_classes(classes)
        config = inferred(shapes, arguments, dilated)
        with torch.device("meta"):  # only names and shapes; the file's tensors are assigned later
            model = DeformableDetr(config, classes)
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: not supported by this version: {error}") from None
    published = {name: published_names(name, config)[0] for name in model.state_dict()}
    expected = names.theirs({published[name]: value for name, value in model.state_dict().items()})
    require_same(file, expected, single, TITLE)
    weights = names.ours(single)
    model.load_state_dict({name: weights[published[name]].float() for name in published}, assign=True)
    require_transformer_agreement(beside, config, file)
    shown: dict[str, Any] = {
        "num_feature_levels": config.levels,
        "encoder_n_points": config.points,
        "decoder_n_points": config.points,
    }
    shown |= {"with_box_refine": config.refine, "two_stage": config.two_stage, "position_embedding_type": "sine"}
    if not config.two_stage:  # whose queries are not learned
        shown["num_queries"] = config.queries
    require_agreement(beside, shown, file)
    entries = content.get("categories")
    categories = categories_of(class_names(beside, classes, file) if entries is None else entries, classes, file)
    return model, categories, {"backbone": library, "heads": sorted(name for name in state if _HEAD.fullmatch(name))}


def to_hugging_face(
    model: DeformableDetr, categories: Sequence[Category], file_details: Mapping[str, Any], file: str
) -> dict[str, Any]:
    """Returns the content of a file of this layout, from which `from_hugging_face` restores the same detector.

    file_details: what `from_hugging_face` returned about the file that the detector was read from; without it, the file gets
    all names of each weight. Raises CheckpointError if the layout does not support the detector.
    """
    config = model.config
    names = _names(file_details.get("backbone", "timm"))
    state = {published_names(name, config)[0]: value.detach().cpu() for name, value in model.state_dict().items()}
    theirs = names.theirs(state)
    heads = {name: value for name, value in theirs.items() if _HEAD.fullmatch(name)}
    wanted = file_details.get("heads") or _all_names(heads, config.decoder_layers, config.refine, config.two_stage)
    others = {name: value for name, value in theirs.items() if name not in heads}
    content = {"model": others | {name: heads[_single_name(name, heads)].clone() for name in wanted}}
    content |= plain_values(model, categories)
    content["args"]["with_box_refine"] = config.refine
    require_kept(model, content, file, from_hugging_face, HINT)
    return content


def _names(backbone: BackboneLibrary) -> Names:
    # Returns pairs of published names and theirs, because the published format has the same structure.
    pairs = backbone_names(backbone, f"model.{BACKBONE}")
    for part, norms in _NORMS.items():
        layer, their_layer = f"transformer.{part}.layers.{{}}.", f"model.{part}.layers.{{}}."
        pairs += [(layer + ours, their_layer + theirs) for ours, theirs in (*_LAYERS, *norms.items())]
        pairs += [(f"{layer}cross_attn.", f"{their_layer}encoder_attn."), (layer, their_layer)]
    pairs += [("query_embed.", "model.query_position_embeddings."), ("input_proj.", "model.input_proj.")]
    return Names([*pairs, ("transformer.", "model.")], split_attention=True)


def _arguments(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    # Returns what config.json says, under the names of the published argument namespace, and whether boxes are refined.
    heads = attention_heads(config, file)
    arguments: dict[str, Any] = {} if heads is None else {"nheads": heads}
    if "two_stage_num_proposals" in config and config.get("two_stage"):
        arguments["num_queries"] = config["two_stage_num_proposals"]
    return arguments | {name: config[name] for name in ("dropout", "dilation", "with_box_refine") if name in config}


def _refines(state: Mapping[str, Tensor]) -> bool:
    # Box refinement has other box heads in every decoder layer, and keeps them in the decoder, too.
    if any(name.startswith("model.decoder.bbox_embed.") for name in state):
        return True
    last = "bbox_embed.{}.layers.2.bias"
    return last.format(1) in state and not torch.equal(state[last.format(1)], state.get(last.format(0), torch.empty(0)))


def _with_single_names(state: Mapping[str, Tensor], refine: bool, file: str) -> dict[str, Tensor]:
    """Returns weights with one name for each: those of the heads are `class_embed.N.` and `bbox_embed.N.`.

    Without refinement only N = 0 is left. A head that only layer 0 has is that of all layers. Raises CheckpointError if two names
    of a weight have different values.
    """
    single: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, value in state.items():
        match = _HEAD.fullmatch(name)
        kept = f"{match[2]}.{match[3] if refine else 0}.{match[4]}" if match else name
        if kept in single and not torch.equal(single[kept], value):
            raise CheckpointError(f"{file}: {name}: expected the values of {origin[kept]}, the same weight, found others")
        single[kept] = value
        origin.setdefault(kept, name)
    if refine:
        heads = count(dict.fromkeys(single, ()), r"bbox_embed\.(\d+)\.")
        if count(dict.fromkeys(single, ()), r"class_embed\.(\d+)\.") == 1:
            first = {name: value for name, value in single.items() if name.startswith("class_embed.0.")}
            for number in range(1, heads):
                single |= {name.replace(".0.", f".{number}.", 1): value.clone() for name, value in first.items()}
    return single


def _single_name(name: str, heads: Mapping[str, Tensor]) -> str:
    # Returns the name in `heads` of a weight that has several.
    match = _HEAD.fullmatch(name)
    assert match is not None, "expected the name of a head's weight"
    own = f"{match[2]}.{match[3]}.{match[4]}"
    return own if own in heads else f"{match[2]}.0.{match[4]}"


def _all_names(heads: Mapping[str, Tensor], layers: int, refine: bool, two_stage: bool) -> list[str]:
    numbers = range(layers + two_stage)
    names = {f"{head}.{number}.{rest}" for head, _, rest in (name.split(".", 2) for name in heads) for number in numbers}
    in_decoder = {"bbox_embed": refine, "class_embed": two_stage}
    return sorted(names | {f"model.decoder.{name}" for name in names if in_decoder[name.split(".")[0]]})
