"""Reads and writes checkpoints: weights with the configuration that rebuilds their model and the categories of their training.

It reads the project's format and those of `layouts.py`. Only tensors and plain values are loaded (`weights_only`), never code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from detr_core.config import ConfigError, as_dict, require
from detr_core.model.common.detector import Detector
from detr_core.model.common.files import CheckpointError, read_content, write_atomically, write_safetensors
from detr_core.model.common.inferred import require_classes, require_numbers, require_same, stated_values, written_categories
from detr_core.model.common.placement import place
from detr_core.model.common.weight_names import description
from detr_core.model.detr.config import AttentionMaps
from detr_core.model.layouts import LAYOUTS, layout_for, layout_of
from detr_core.model.spec import build_detector, detector_config, kind_of
from detr_core.structures import Category

if TYPE_CHECKING:
    from detr_core.model.detr.model import Detr

__all__ = ["Checkpoint", "CheckpointError", "export_checkpoint", "load_checkpoint", "load_checkpoint_of", "save_checkpoint"]

FORMAT = "detr-workbench-1"
EXPORTED = ("value_ranges", "mask_targets")  # the values of `Checkpoint.meta` that a file in the published format holds, too


@dataclass
class Checkpoint:
    """A detector with its categories and information about its training.

    model: the detector in eval mode. categories: the category of each class index. meta: plain values such as `profile`, `stage`,
    `epoch`, `step`, `value_ranges`, the ranges of training images with more than 8 bits per value, and `mask_targets`, which is
    'instances' if the mask head was trained on masks of instances. A checkpoint from elsewhere has `source`
    instead: what is needed to write its file again, if anything.
    """

    model: Detector
    categories: tuple[Category, ...]
    meta: dict[str, Any]

    @property
    def value_ranges(self) -> dict[str, tuple[float, float]] | None:
        """The ranges by which images of more than 8 bits per value were scaled in training; None without such images."""
        ranges = self.meta.get("value_ranges")
        return None if ranges is None else {str(kind): (float(low), float(high)) for kind, (low, high) in ranges.items()}

    @property
    def predicts_masks(self) -> bool:
        """Whether the detector predicts masks, with a mask head or by itself."""
        return self.model.has_mask_head or "masks" in kind_of(self.model.config.kind).capabilities

    @property
    def predicts_panoptic_maps(self) -> bool:
        """Whether the detector predicts panoptic maps, with a mask head or by itself.

        A mask head that has learned only instances has no masks of stuff, to which the pixels between the instances would belong.
        """
        by_itself = "panoptic" in kind_of(self.model.config.kind).capabilities
        return by_itself or (self.model.has_mask_head and self.meta.get("mask_targets") != "instances")


@dataclass(frozen=True)
class _Meta:
    """The values of `Checkpoint.meta` that the project reads, for the check of their types."""

    profile: str | None = field(default=None, metadata={"optional": True})
    mask_targets: Literal["panoptic", "instances"] | None = field(default=None, metadata={"optional": True})
    value_ranges: dict[str, tuple[float, float]] | None = field(default=None, metadata={"optional": True})
    source: dict[str, Any] | None = field(default=None, metadata={"optional": True})

    def __post_init__(self) -> None:
        for kind, (low, high) in (self.value_ranges or {}).items():
            require(low < high, f"value_ranges.{kind}", "a lowest value below the highest", [low, high])


def save_checkpoint(path: Path, model: Detector, categories: tuple[Category, ...], meta: Mapping[str, Any]) -> None:
    """Writes a checkpoint atomically: `path` holds the old content or the new one, never a part of either."""
    content = {
        "format": FORMAT,
        "detector": as_dict(model.config),
        "mask_head": model.has_mask_head,
        "attention_maps": model.attention_maps,
        "categories": [asdict(category) for category in categories],
        "meta": dict(meta),
        "model": model.state_dict(),
    }
    write_atomically(path, content)


def load_checkpoint(path: Path, device: torch.device, dilation: bool | None = None) -> Checkpoint:
    """Returns the detector in `path`, in the project's format or in a layout from elsewhere, on `device` and in eval mode.

    dilation: whether the detector is a DC5 model; None takes this from the file (see `from_published`).
    Raises CheckpointError for a file that is missing, can't be read without running code, doesn't fit its own configuration, or
    has weights that are infinite or not a number.
    """
    content = read_content(path, torch.device("cpu"))
    own = isinstance(content, dict) and content.get("format") == FORMAT
    checkpoint = _from_project_format(content, path) if own else _from_elsewhere(content, path, dilation)
    stated_values(_Meta, checkpoint.meta, f"{path}: meta" if own else str(path))
    actual = checkpoint.model.config.backbone.dilation
    if dilation is not None and dilation != actual:
        raise CheckpointError(f"{path}: detector.backbone.dilation: expected {dilation}, as requested, found {actual}")
    _require_finite(checkpoint.model, path)
    place(checkpoint.model, device)
    checkpoint.model.eval()
    return checkpoint


def _require_finite(model: Detector, path: Path) -> None:
    for name, weight in model.state_dict().items():
        if name.endswith(".running_var") and (below := weight < 0).any():
            problem = f"found {int(below.sum()):,} of {weight.numel():,} that are below 0"
            raise CheckpointError(f"{path}: {name}: expected variances, {problem}; use another checkpoint, or train it again")
        if weight.is_floating_point() and not (finite := weight.isfinite()).all():
            problem = f"found {int((~finite).sum()):,} of {weight.numel():,} that are infinite or not a number"
            raise CheckpointError(
                f"{path}: {name}: expected finite weights, {problem}; use another checkpoint, or train it again"
            )


def export_checkpoint(checkpoint: Checkpoint, path: Path, layout: str | None = None) -> None:
    """Writes `path` in a layout from elsewhere, atomically. layout: its name; None takes the first of the kind's layouts.

    Raises ConfigError if the kind of detector does not have the layout, and CheckpointError if the layout can't hold this
    detector.
    """
    row = layout_for(checkpoint.model.config.kind, layout)
    content = row.write(checkpoint.model, checkpoint.categories, checkpoint.meta.get("source", {}), str(path))
    content |= {name: checkpoint.meta[name] for name in EXPORTED if name in checkpoint.meta}
    (write_safetensors if row.safetensors else write_atomically)(path, content)


def as_detr(model: Detector, operation: str, path: Path) -> Detr:
    """Returns `model` if it is a DETR, else raises CheckpointError.

    operation: the name of the operation that supports only DETR. path: the checkpoint's file, which the error names.
    """
    from detr_core.model.detr.model import Detr  # only here, because processes of other kinds do not need DETR's code

    if not isinstance(model, Detr):
        raise CheckpointError(f"{path}: {operation} supports detectors of kind 'detr' only, found kind {model.config.kind!r}")
    return model


def _from_project_format(content: dict[str, Any], path: Path) -> Checkpoint:
    try:
        config = detector_config(_with_newer_keys(content["detector"]), f"{path}: detector")
        categories = written_categories(content["categories"])
        require_classes(len(categories))
        require(isinstance(content["mask_head"], bool), "mask_head", "true or false", content["mask_head"])
        maps = _attention_maps(content)
        if maps not in (None, *get_args(AttentionMaps)):
            raise ConfigError(f"attention_maps: expected one of {get_args(AttentionMaps)}, found {maps!r}")
        model = build_detector(config, len(categories), maps, [category.isthing for category in categories])
        require_numbers(content["model"], str(path))
        require_same(str(path), model.state_dict(), content["model"], "the detector that it describes")
        model.load_state_dict(content["model"])
        return Checkpoint(model, categories, content["meta"])
    except KeyError as error:
        raise CheckpointError(
            f"{path}: {error.args[0]}: missing in the checkpoint; copy the file again, or train again"
        ) from None
    except CheckpointError:
        raise
    except Exception as error:  # a damaged or a malicious file can make any of these functions fail
        raise CheckpointError(f"{path}: the checkpoint doesn't fit this version: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"


def _attention_maps(content: Mapping[str, Any]) -> Any:
    """Returns the kind of attention maps in a checkpoint, under its present name; None without a mask head."""
    if not content["mask_head"]:
        return None
    maps = content.get("attention_maps", "published")  # checkpoints older than this choice do not name it
    return "published" if maps == "released" else maps  # its former name


def _with_newer_keys(detector: Any) -> Any:
    """Returns the configuration in a checkpoint with the keys that did not exist when an older checkpoint was written."""
    if not isinstance(detector, Mapping):
        return detector  # which `detector_config` refuses, as it does wrong positions
    content = {"kind": "detr", **detector}  # checkpoints without a kind are older than the other kinds
    if content["kind"] == "detr" and isinstance(positions := content.get("positions"), Mapping):
        content["positions"] = {"queries": "attention", "factor": 1, **positions}
    return content


def _from_elsewhere(content: Any, path: Path, dilation: bool | None) -> Checkpoint:
    inner = content.get("model") if isinstance(content, Mapping) else None
    whole = content if isinstance(inner, Mapping) else {"model": content}
    state = whole["model"]
    layout = layout_of([str(name) for name in state]) if isinstance(state, Mapping) else None
    if layout is None:
        known = ", ".join(row.title for row in LAYOUTS)
        expected = f"expected a checkpoint of this project (format {FORMAT!r}), or one of {known}"
        raise CheckpointError(f"{path}: {expected}; found {description(state if len(whole) == 1 else whole)}")
    try:
        model, categories, file_details = layout.read(whole, str(path), dilation)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can make any of these functions fail
        problem = f"expected {layout.title}, found values that don't fit it ({_reason(error)})"
        raise CheckpointError(f"{path}: {problem}; copy the file again, or use another checkpoint") from None
    meta = {name: whole[name] for name in EXPORTED if name in whole} | ({"source": file_details} if file_details else {})
    return Checkpoint(model, categories, meta)


def load_checkpoint_of(path: Path, profile: str, device: torch.device) -> Checkpoint:
    """Returns the detector in `path`, on `device`. Raises CheckpointError if it can't be read or belongs to another profile."""
    checkpoint = load_checkpoint(path, device)
    owner = checkpoint.meta.get("profile")
    if owner != profile:
        where = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        raise CheckpointError(
            f"{where}: expected a checkpoint of profile {profile!r}, found one of {owner!r}; train the detector of this profile"
        )
    return checkpoint
