"""What the checkpoints of Hugging Face's library `transformers` have in common: names of backbones, and the file config.json.

A folder of the library holds `model.safetensors`, the weights, and `config.json`. The weights are enough; if config.json is
beside them, it gives what the weights don't show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from detr_core.model.common.files import CheckpointError

BackboneLibrary = Literal["timm", "transformers"]
"""The library whose names a backbone has: 'timm', as in the released files, or 'transformers' for the library's own ResNet."""

BACKBONE = "backbone.conv_encoder.model."
CONFIGURATION = "config.json"
_OURS = "backbone.0.body."


def backbone_library(keys: Iterable[str]) -> BackboneLibrary:
    """Returns the library whose names the backbone has. keys: the names of all weights in a file."""
    own = any(f"{BACKBONE}embedder." in str(key) or f"{BACKBONE}encoder." in str(key) for key in keys)
    return "transformers" if own else "timm"


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
        for place in (1, 2, 3):
            pairs += [(f"{block}conv{place}.", f"{their_block}layer.{place - 1}.convolution.")]
            pairs += [(f"{block}bn{place}.", f"{their_block}layer.{place - 1}.normalization.")]
    return [(_OURS + ours, theirs + name) for ours, name in pairs]


def configuration(file: str, model_type: str) -> dict[str, Any]:
    """Returns the content of config.json beside the file of weights, which is empty if there is no such file.

    Raises CheckpointError if the file can't be read, or describes another model than `model_type` or one with an activation
    function other than ReLU.
    """
    path = Path(file).with_name(CONFIGURATION)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: expected JSON, found {error}; copy the file again, or move it elsewhere") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a mapping, found a {type(content).__name__}")
    for field, expected in (("model_type", model_type), ("activation_function", "relu")):
        if content.get(field, expected) != expected:
            raise CheckpointError(f"{path}: {field}: expected {expected!r}, found {content[field]!r}")
    return dict(content)


def attention_heads(config: Mapping[str, Any], file: str) -> int | None:
    """Returns the number of attention heads in config.json, None if it does not say so.

    Raises CheckpointError if the encoder and the decoder have different numbers. file: the file of weights.
    """
    heads = {config[field] for field in ("encoder_attention_heads", "decoder_attention_heads") if field in config}
    if len(heads) > 1:
        where = Path(file).with_name(CONFIGURATION)
        raise CheckpointError(f"{where}: expected the same number of heads in all attention layers, found {sorted(heads)}")
    return heads.pop() if heads else None


def class_names(config: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns the categories that `id2label` in config.json gives names; None without names of its own.

    A class index is the category's id.
    """
    labels = config.get("id2label")
    if not isinstance(labels, Mapping) or all(label == f"LABEL_{index}" for index, label in labels.items()):
        return None
    return [{"id": int(index), "name": str(label), "isthing": True} for index, label in labels.items()]
