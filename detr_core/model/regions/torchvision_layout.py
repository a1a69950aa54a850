"""Reads and writes weights under the names of torchvision's Faster R-CNN and Mask R-CNN, of both versions of each.

A file holds the state dict, alone or under 'model'. Both forms of torchvision's batch norm are read as frozen: in evaluation they
compute the same, and a training with small batches keeps the statistics. The counters of trainable batch norm are kept for
writing. A class index is torchvision's label - 1; the label is a category id, one of COCO's if there are 91 labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detr_core.checksums import digest
from detr_core.coco import coco_categories
from detr_core.config import ConfigError, build
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
    written_categories,
)
from detr_core.model.common.weight_names import Names
from detr_core.model.regions.config import MaskRegionConfig, RegionConfig
from detr_core.model.regions.detector import FasterRcnn
from detr_core.model.regions.masks import MaskRcnn
from detr_core.structures import Category

Read = tuple[FasterRcnn, tuple[Category, ...], dict[str, Any]]

COCO_LABELS = 91  # of the published weights: COCO's highest category id + 1
# The first digits of the checksums of the published files that torchvision evaluates without eps. They were trained without it.
PUBLISHED_WITHOUT_EPS = ("258fb6c6", "bf2d0c1e")
COUNTER = ".num_batches_tracked"
NAMES = Names([("backbone.0.body.", "backbone.body."), ("backbone.1.", "backbone.fpn.")])
# Names of earlier versions of torchvision, which the published weights have.
_FORMER = (
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"(rpn\.head\.conv)\.(weight|bias)", r"\1.0.0.\2"),
    (r"(roi_heads\.mask_head)\.mask_fcn(\d)\.(weight|bias)", lambda match: f"{match[1]}.{int(match[2]) - 1}.0.{match[3]}"),
)
# The fields of the configuration that a file of this project has under 'args', because the weights don't show them. The values
# are torchvision's.
_NOT_IN_WEIGHTS: dict[str, Any] = {
    "anchors": (32.0, 64.0, 128.0, 256.0, 512.0),
    "proposals": 1000,
    "candidates": 1000,
    "training_proposals": 2000,
    "training_candidates": 2000,
    "sampled_anchors": 256,
    "sampled_proposals": 512,
}
_HINT = "the layout supports detectors with a feature pyramid on a ResNet with frozen batch norm"


def from_torchvision(content: Mapping[str, Any], file: str, config: type[RegionConfig]) -> Read:
    """Returns the detector, on the CPU, its categories, and the counters of its batch norms, as plain values.

    content: that of a file of this layout. file: its path. config: the configuration of the kind of detector; with one of a kind
    with masks, the detector is Mask R-CNN. Raises CheckpointError, which names the weights that are missing, unknown or have
    another shape.
    """
    whole = content["model"]
    counters = {name: _counter(value, name, file) for name, value in whole.items() if str(name).endswith(COUNTER)}
    state = _under_present_names({name: value for name, value in whole.items() if name not in counters}, file)
    shapes = NAMES.our_shapes(state)
    heads = [("roi_heads.box_predictor.cls_score.weight", 0), ("roi_heads.box_predictor.cls_score.bias", 0)]
    classes = agreed(shapes, heads, COCO_LABELS) - 1
    own = content.get("args", {})
    arguments = own if isinstance(own, Mapping) and "norm_eps" in own else {"norm_eps": _eps(file, frozen=not counters)}
    masks = issubclass(config, MaskRegionConfig)
    try:
        require_classes(classes)
        fields = build(config, {"kind": config.kind} | _inferred(shapes, arguments, masks), "args")
        with torch.device("meta"):  # only names and shapes; the file's tensors are assigned later
            model = MaskRcnn(fields, classes) if isinstance(fields, MaskRegionConfig) else FasterRcnn(fields, classes)
        categories = _categories(content.get("categories"), classes)
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: not supported by this version: {error}") from None
    title = "torchvision's Mask R-CNN" if masks else "torchvision's Faster R-CNN"
    require_same(file, NAMES.theirs(model.state_dict()), state, title)
    model.load_state_dict({name: value.float() for name, value in NAMES.ours(state).items()}, assign=True)
    return model, categories, {"batches_tracked": counters} if counters else {}


def to_torchvision(model: FasterRcnn, categories: Sequence[Category], source: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Returns the content of a file of this layout, from which `from_torchvision` restores the same detector.

    source: the counters of its batch norms, which can be missing. Raises CheckpointError if the layout does not support the
    detector.
    """
    state = {name: value.detach().cpu() for name, value in NAMES.theirs(model.state_dict()).items()}
    counters = {name: torch.tensor(value) for name, value in source.get("batches_tracked", {}).items()}
    arguments = {name: getattr(model.config, name) for name in _NOT_IN_WEIGHTS} | {"norm_eps": model.config.backbone.norm_eps}
    content = {
        "model": state | counters,
        "args": _as_plain(arguments),
        "categories": [asdict(category) for category in categories],
    }
    require_kept(model, content, file, lambda written, path, _: from_torchvision(written, path, type(model.config)), _HINT)
    return content


def _inferred(shapes: Shapes, arguments: Mapping[str, Any], masks: bool) -> dict[str, Any]:
    # Returns the section `detector` for the weights, without its kind. arguments: the values under
    # 'args'; a value that 'args' lacks is torchvision's.
    levels = count(shapes, r"backbone\.1\.inner_blocks\.(\d+)\.")
    widths = [(f"backbone.1.layer_blocks.{level}.0.weight", 0) for level in range(levels)]
    hidden = [("roi_heads.box_predictor.cls_score.weight", 1), ("roi_heads.box_predictor.bbox_pred.weight", 1)]
    second = any(re.match(r"roi_heads\.box_head\.\d", name) for name in shapes)
    backbone = {"name": resnet_of(shapes), "dilation": False, "weights": None, "norm": "frozen", "frozen_stages": 2}
    fields = {name: arguments.get(name, value) for name, value in _NOT_IN_WEIGHTS.items()}
    mask_widths = [("roi_heads.mask_predictor.conv5_mask.weight", 1), ("roi_heads.mask_predictor.mask_fcn_logits.weight", 1)]
    return {
        **_as_plain(fields),
        **({"mask_width": agreed(shapes, mask_widths, 256)} if masks else {}),
        "backbone": {**backbone, "norm_eps": arguments["norm_eps"]},
        "stages": list(range(5 - max(1, min(4, levels)), 5)),
        "width": agreed(shapes, widths, 256),
        "head_width": agreed(shapes, hidden, 1024),
        "version": 2 if second else 1,
    }


def _as_plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _counter(value: Any, name: str, file: str) -> int:
    single = isinstance(value, Tensor) and value.numel() == 1 and not value.is_meta and not value.is_complex()
    number = float(value) if single else float("nan")
    if number < 0 or not number.is_integer():
        found = f"{number}" if single else f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise CheckpointError(
            f"{file}: {name}: expected one whole number of 0 or more, found {found}; leave the counters out of the file"
        )
    return int(value)


def _under_present_names(state: Mapping[str, Any], file: str) -> dict[str, Any]:
    require_numbers(state, file)
    names: dict[str, str] = {}  # present name -> name in the file
    for name in state:
        other = names.setdefault(_present_name(name), name)
        if other != name:
            raise CheckpointError(
                f"{file}: {name}: expected each weight under one name, found it under {other}, too; remove one of them"
            )
    return {present: state[name] for present, name in names.items()}


def _present_name(name: str) -> str:
    for pattern, replacement in _FORMER:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


def _eps(file: str, frozen: bool) -> float:
    # Nothing in the weights shows eps, so the published files are recognised by their checksums.
    without = frozen and Path(file).is_file() and digest(Path(file)).startswith(PUBLISHED_WITHOUT_EPS)
    return 0.0 if without else 1e-5


def _categories(entries: Any, classes: int) -> tuple[Category, ...]:
    if entries is not None:
        return written_categories(entries, classes)
    coco = coco_categories() if classes + 1 == COCO_LABELS else {}
    known = range(1, classes + 1)
    if not coco:  # trained on other data, whose category names are not in the file
        return tuple(Category(label, "", True) for label in known)
    return tuple(coco.get(label, Category(label, f"unused {label}", False, used=False)) for label in known)
