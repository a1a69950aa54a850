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
from detr_core.model.transformer.published import COCO_CLASSES

BackboneLibrary = Literal["timm", "transformers"]
"""The library whose names a backbone has: 'timm', as in the released files, or 'transformers' for the library's own ResNet."""

BACKBONE = "backbone.conv_encoder.model."
CONFIGURATION = "config.json"
_HEADS = ("encoder_attention_heads", "decoder_attention_heads")
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
    function other than ReLU, or if a field that this module reads has a value of a wrong type.
    """
    path = Path(file).with_name(CONFIGURATION)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON, found {error}; copy the file again, or move it elsewhere") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: expected a mapping, found a {type(content).__name__}")
    for field, expected in (("model_type", model_type), ("activation_function", "relu")):
        _require(path, field, repr(expected), content.get(field, expected) == expected, content.get(field))
    backbone = content.get("backbone_config")
    if isinstance(backbone, Mapping):
        activation = backbone.get("hidden_act", "relu")
        _require(path, "backbone_config.hidden_act", "'relu'", activation == "relu", activation)
    for field in _HEADS:
        value = content.get(field, 1)
        _require(path, field, "a whole number above 0", type(value) is int and value > 0, value)
    dilation = content.get("dilation")
    _require(path, "dilation", "true or false", dilation is None or isinstance(dilation, bool), dilation)
    _require_class_names(path, content.get("id2label", {}))
    return dict(content)


def _require(path: Path, field: str, expected: str, fits: bool, found: Any) -> None:
    if not fits:
        raise CheckpointError(f"{path}: {field}: expected {expected}, found {found!r}; copy the file again, or move it elsewhere")


def _require_class_names(path: Path, labels: Any) -> None:
    expected = "the name of each class under its index, which are all numbers from 0"
    is_mapping = isinstance(labels, Mapping) and all(str(index).isascii() and str(index).isdecimal() for index in labels)
    _require(path, "id2label", expected, is_mapping, labels)
    numbers = sorted(int(index) for index in labels)
    _require(path, "id2label", expected, numbers == list(range(len(labels))), f"the indices {numbers[:10]} ...")
    other = next((name for name in labels.values() if not isinstance(name, str)), None)
    _require(path, "id2label", "names that are texts", other is None, other)


def require_agreement(config: Mapping[str, Any], file: str, actual: Mapping[str, Any]) -> None:
    """Raises CheckpointError if config.json says something else about the detector than its weights.

    config: the content of config.json. file: that of the weights. actual: field of config.json -> value that the weights show.
    """
    path = Path(file).with_name(CONFIGURATION)
    for field, value in actual.items():
        _require(
            path,
            field,
            f"{value!r}, as the weights in {Path(file).name} show",
            config.get(field, value) == value,
            config.get(field),
        )


def attention_heads(config: Mapping[str, Any], file: str) -> int | None:
    """Returns the number of attention heads in config.json, None if it does not say so.

    Raises CheckpointError if the encoder and the decoder have different numbers. file: the file of weights.
    """
    heads = {config[field] for field in _HEADS if field in config}
    if len(heads) > 1:
        where = Path(file).with_name(CONFIGURATION)
        raise CheckpointError(f"{where}: expected the same number of heads in all attention layers, found {sorted(heads)}")
    return heads.pop() if heads else None


def class_names(config: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Returns the categories that `id2label` in config.json names, in the order of their indices, which are their ids.

    Returns None without names of its own, and for COCO's classes, whose names and gaps are known.
    """
    labels = {int(index): name for index, name in config.get("id2label", {}).items()}
    has_own = any(name != f"LABEL_{index}" for index, name in labels.items())
    is_coco = len(labels) in COCO_CLASSES and labels[1] == "person"
    if not has_own or is_coco:
        return None
    return [{"id": index, "name": labels[index], "isthing": True} for index in sorted(labels)]
