"""Reads and writes DETR's weights under the names of Hugging Face's library `transformers`, as in facebook/detr-resnet-50.

The names of the backbone are those of `timm`, as in the published files, or of the library's own ResNet. The classes are those of
the published format. What the weights don't show is taken from the file itself, if this project has written it, else from
config.json beside it, else it is as published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detr_core.model.common.files import CheckpointError
from detr_core.model.common.weight_names import Names
from detr_core.model.detr.model import Detr
from detr_core.model.detr.published import detector_from, exported, has_mask_head
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
from detr_core.model.transformer.published import arguments_of, categories_of, dilation_of
from detr_core.structures import Category

TITLE = "a DETR of Hugging Face's transformers"
NARROWEST = 256  # narrower mask heads have fewer groups in this project
_LAYERS = [
    ("self_attn.", "self_attn."),
    ("multihead_attn.", "encoder_attn."),
    ("linear1.", "fc1."),
    ("linear2.", "fc2."),
    ("norm1.", "self_attn_layer_norm."),
]


def from_hugging_face(
    content: Mapping[str, Any], file: str, dilation: bool | None
) -> tuple[Detr, tuple[Category, ...], dict[str, Any]]:
    """Returns the detector, on the CPU, its categories, and as plain values the library after which its backbone is named.

    content: that of a file of this layout. file: its path. dilation: see `from_published`. Raises CheckpointError as
    `from_published` does.
    """
    state = content["model"]
    require_saved_names(state, file)
    own = arguments_of(content, file)
    beside = {} if "nheads" in own else configuration(file, "detr")  # of other files, also those with arguments of another sort
    arguments = _arguments(beside, file) | own
    path = Path(file)  # the published files have the same name, in a folder with the name of the model
    arguments["dilation"] = dilation_of(arguments, file, dilation, f"{path.parent.name}/{path.name}")
    library = backbone_library(state)
    names = _names(has_mask_head(state), library)
    model = detector_from(state, names, arguments, file, TITLE)
    require_transformer_agreement(beside, model.config, file)
    shown = {"num_queries": model.config.queries, "position_embedding_type": model.config.positions.kind}
    require_agreement(beside, shown, file)
    entries = content.get("categories")
    categories = categories_of(
        class_names(beside, model.num_classes, file) if entries is None else entries, model.num_classes, file
    )
    if model.has_mask_head and model.config.width < NARROWEST:
        expected = f"a mask head on a width of {NARROWEST} or more, because their group norm has other groups in narrower ones"
        raise CheckpointError(f"{file}: expected {expected}, found a width of {model.config.width}")
    return model, categories, {"backbone": library}


def to_hugging_face(model: Detr, categories: Sequence[Category], file_details: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Returns the content of a file of this layout, from which `from_hugging_face` restores the same detector.

    file_details: what `from_hugging_face` returned about the file that the detector was read from; it can be empty. Raises
    CheckpointError if the layout does not support the detector.
    """
    names = _names(model.has_mask_head, file_details.get("backbone", "timm"))
    hint = "the layout supports DETR on a ResNet with frozen batch norm, post-norm and heads shared by all layers"
    return exported(model, categories, names, from_hugging_face, file, hint)


def _names(mask_head: bool, backbone: BackboneLibrary) -> Names:
    prefix = "detr." if mask_head else ""
    model = f"{prefix}model."
    pairs = backbone_names(backbone, f"{model}{BACKBONE}")
    for part, last in (("encoder", [("norm2.", "final_")]), ("decoder", [("norm2.", "encoder_attn_"), ("norm3.", "final_")])):
        layer, their_layer = f"transformer.{part}.layers.{{}}.", f"{model}{part}.layers.{{}}."
        pairs += [(layer + ours, their_layer + theirs) for ours, theirs in _LAYERS]
        pairs += [(layer + ours, f"{their_layer}{theirs}layer_norm.") for ours, theirs in last]
    pairs += [
        ("backbone.1.row_embed.", f"{model}position_embedding.row_embeddings."),
        ("backbone.1.col_embed.", f"{model}position_embedding.column_embeddings."),
        ("transformer.decoder.norm.", f"{model}decoder.layernorm."),
        ("input_proj.", f"{model}input_projection."),
        ("query_embed.", f"{model}query_position_embeddings."),
        ("class_embed.", f"{prefix}class_labels_classifier."),
        ("bbox_embed.", f"{prefix}bbox_predictor."),
    ]
    return Names(pairs, split_attention=True)


def _arguments(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    # Returns what config.json says, under the names of the published argument namespace.
    heads = attention_heads(config, file)
    arguments: dict[str, Any] = {} if heads is None else {"nheads": heads}
    return arguments | {name: config[name] for name in ("dropout", "dilation") if name in config}
