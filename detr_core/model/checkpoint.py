"""Checkpoints: weights together with the configuration that rebuilds their model and the categories they were trained on.

Only tensors and plain values are ever loaded (`weights_only`), never code.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from detr_core.config import ConfigError, as_dict, build
from detr_core.model.config import DetectorConfig
from detr_core.model.detr import Detr
from detr_core.structures import Category

FORMAT = "detr-workbench-1"


class CheckpointError(ValueError):
    """A checkpoint that is missing, torn, hostile or of another kind; the message says which file and what to do."""


@dataclass
class Checkpoint:
    """A detector with what it was trained on.

    model: in eval mode. categories: by class index. meta: plain values such as `profile`, `stage`, `epoch`, `step`.
    """

    model: Detr
    categories: tuple[Category, ...]
    meta: dict[str, Any]


def save_checkpoint(path: Path, model: Detr, categories: tuple[Category, ...], meta: Mapping[str, Any]) -> None:
    """Writes `path` atomically: it holds the old content or the new, never a part."""
    content = {
        "format": FORMAT,
        "detector": as_dict(model.config),
        "mask_head": model.has_mask_head,
        "categories": [asdict(category) for category in categories],
        "meta": dict(meta),
        "model": model.state_dict(),
    }
    write_atomically(path, content)


def load_checkpoint(path: Path, device: torch.device) -> Checkpoint:
    """The detector in `path`, on `device` and in eval mode.

    Raises CheckpointError for a file that is missing, can't be read without running code, or doesn't fit its own configuration.
    """
    content = read_content(path, device)
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT:
        raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT!r}, found {found!r}")
    try:
        config = build(DetectorConfig, content["detector"], f"{path}: detector")
        categories = tuple(Category(**category) for category in content["categories"])
        model = Detr(config, len(categories), content["mask_head"])
        model.load_state_dict(content["model"])
    except (ConfigError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the checkpoint doesn't fit this version: {error}") from None
    return Checkpoint(model.to(device).eval(), categories, content["meta"])


def read_content(path: Path, device: torch.device) -> Any:
    """What a checkpoint file holds: tensors and plain values. Raises CheckpointError where it can't be had."""
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint; train one first or give another path")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint that can be read without running code: {reason}") from None


def write_atomically(path: Path, content: Any) -> None:
    """torch.save to `path` through a temporary file beside it that is on disk before it takes the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
