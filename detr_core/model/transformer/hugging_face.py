"""What the checkpoints of Hugging Face's library `transformers` have in common: names of backbones, and the file config.json.

A folder of the library holds `model.safetensors`, the weights, and `config.json`. The weights are enough; if config.json is
beside them, it gives what the weights don't show.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any, Literal

from detr_core.coco import coco_categories
from detr_core.model.common.files import CheckpointError, json_mapping
from detr_core.model.common.inferred import stated_values
from detr_core.model.transformer.config import TransformerConfig
from detr_core.model.transformer.published import COCO_CLASSES

BackboneLibrary = Literal["timm", "transformers"]
"""The library after which a backbone's weights are named.

It is 'timm', as in the published files, or 'transformers' for the library's own ResNet.
"""

BACKBONE = "backbone.conv_encoder.model."
CONFIGURATION = "config.json"
_OURS = "backbone.0.body."
_HEADS = ("encoder_attention_heads", "decoder_attention_heads")
# Fields of a ResNet of the library that change the computation without changing the weights; only these values are supported.
_RESNET = {"hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False}

_FIELDS: dict[Any, tuple[str, ...]] = {
    int: (
        *("d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim", "decoder_ffn_dim"),
        *("num_queries", "two_stage_num_proposals", "num_feature_levels", "encoder_n_points", "decoder_n_points"),
        *_HEADS,
    ),
    bool: ("with_box_refine", "two_stage"),
    bool | None: ("dilation",),  # which the library writes as null for a backbone that has its own configuration
    float: ("dropout",),
    str: ("model_type", "activation_function", "position_embedding_type"),
    dict[str, str]: ("id2label",),
    dict[str, Any] | None: ("backbone_config",),
}
Configuration = make_dataclass(
    "Configuration",
    [(name, kind, field(default=None, metadata={"optional": True})) for kind, names in _FIELDS.items() for name in names],
)
"""The fields of config.json that are read, as a dataclass for `stated_values`."""


def backbone_library(keys: Iterable[str]) -> BackboneLibrary:
    """Returns the library after which the backbone's weights are named. keys: the names of all weights in a file."""
    own = any(f"{BACKBONE}embedder." in str(key) or f"{BACKBONE}encoder." in str(key) for key in keys)
    return "transformers" if own else "timm"


def require_saved_names(keys: Iterable[str], file: str) -> None:
    """Raises CheckpointError for the names of weights in a model of `transformers` 5 in memory, which its files do not have."""
    if any(".backbone.model." in str(key) for key in keys):
        raise CheckpointError(
            f"{file}: expected the names of weights that `save_pretrained` of transformers writes, found those of a model in "
            "memory (of `torch.save(model.state_dict())`); save the model with `save_pretrained`, and use model.safetensors"
        )


def backbone_names(library: BackboneLibrary, theirs: str) -> list[tuple[str, str]]:
    """Returns pairs of beginnings of our and their names of a ResNet, for `Names`.

    theirs: the beginning of their names.
    """
    if library == "timm":  # whose names are torchvision's, as in the published files
        return [(_OURS, theirs)]
    pairs = [("conv1.", "embedder.embedder.convolution."), ("bn1.", "embedder.embedder.normalization.")]
    for stage in (1, 2, 3, 4):
        block, their_block = f"layer{stage}.{{}}.", f"encoder.stages.{stage - 1}.layers.{{}}."
        pairs += [(f"{block}downsample.0.", f"{their_block}shortcut.convolution.")]
        pairs += [(f"{block}downsample.1.", f"{their_block}shortcut.normalization.")]
        for number in (1, 2, 3):
            pairs += [(f"{block}conv{number}.", f"{their_block}layer.{number - 1}.convolution.")]
            pairs += [(f"{block}bn{number}.", f"{their_block}layer.{number - 1}.normalization.")]
    return [(_OURS + ours, theirs + name) for ours, name in pairs]


def configuration(file: str, model_type: str) -> dict[str, Any]:
    """Returns the values of `Configuration` in config.json beside the file of weights, none if there is no such file.

    Raises CheckpointError, which names config.json and the field, if the file can't be read, has a value of another type, or
    describes another model than `model_type`, or a computation that is not supported.
    """
    path = Path(file).with_name(CONFIGURATION)
    if not os.path.lexists(path):
        return {}
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file that can be read, found {error.strerror}") from None
    values = stated_values(Configuration, json_mapping(text, f"{path}: expected JSON"), str(path))
    require_agreement(values, {"model_type": model_type, "activation_function": "relu"}, file)
    require_agreement(values.get("backbone_config") or {}, _RESNET, file, "backbone_config.")
    for name in _HEADS:
        if values.get(name, 1) < 1:
            raise CheckpointError(f"{path}: {name}: expected 1 or more, found {values[name]}; correct or remove this value")
    return values


def require_agreement(config: Mapping[str, Any], expected: Mapping[str, Any], file: str, within: str = "") -> None:
    """Raises CheckpointError, which names both values, if a field in config.json is not as expected.

    A field that config.json does not have is not compared. expected: the values that the weights show, or that this project's
    detectors have. file: the file of weights. within: how the names of the fields begin in an error.
    """
    for name, value in expected.items():
        if name in config and config[name] != value:
            where = f"{Path(file).with_name(CONFIGURATION)}: {within}{name}"
            problem = f"expected {value!r}, which fits the weights in {Path(file).name}, found {config[name]!r}"
            raise CheckpointError(f"{where}: {problem}; use the config.json of these weights, or remove the file")


def require_transformer_agreement(config: Mapping[str, Any], ours: TransformerConfig, file: str) -> None:
    """Raises the error of `require_agreement` for the fields of every detector with a transformer."""
    both = {"ffn_dim": ours.feed_forward, "attention_heads": ours.heads}
    layers = {"encoder": ours.encoder_layers, "decoder": ours.decoder_layers}
    expected = {f"{part}_{name}": value for part in layers if layers[part] for name, value in both.items()}
    expected |= {"d_model": ours.width, **{f"{part}_layers": number for part, number in layers.items()}}
    require_agreement(config, expected, file)


def attention_heads(config: Mapping[str, Any], file: str) -> int | None:
    """Returns the number of attention heads in config.json, None if it does not say so.

    Raises CheckpointError if the encoder and the decoder have different numbers. file: the file of weights.
    """
    heads = {config[name] for name in _HEADS if name in config}
    if len(heads) > 1:
        where = Path(file).with_name(CONFIGURATION)
        raise CheckpointError(f"{where}: expected the same number of heads in all attention layers, found {sorted(heads)}")
    return heads.pop() if heads else None


def class_names(config: Mapping[str, Any], classes: int, file: str) -> list[dict[str, Any]] | None:
    """Returns the categories that `id2label` in config.json gives names, in the order of the class indices.

    A class index is the category's id. The result is None if there are no names, if all are `LABEL_<index>`, or if they are
    COCO's, which `categories_of` knows. The order of the entries in the file means nothing; many files sort the keys as text.
    Raises CheckpointError unless the keys are the class indices. classes: their number.
    """
    labels = config.get("id2label", {})
    indices = [str(index) for index in range(classes)]
    if labels and sorted(labels) != sorted(indices):
        wrong = sorted(set(labels) ^ set(indices))[:5]
        problem = f"expected the keys 0 to {classes - 1}, the classes of the class head, found {len(labels)} keys"
        where = Path(file).with_name(CONFIGURATION)
        raise CheckpointError(
            f"{where}: id2label: {problem}, which differ in {wrong}; use the config.json of these weights, or remove the file"
        )
    coco = coco_categories() if classes in COCO_CLASSES else {}
    known = [int(index) for index in labels if not coco or int(index) in coco]
    if all(labels[str(index)] in (f"LABEL_{index}", coco[index].name if coco else None) for index in known):
        return None
    return [{"id": int(index), "name": labels[index], "isthing": True} for index in indices]
