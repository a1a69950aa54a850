"""The state of a training between two optimiser steps: enough to go on bit for bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detr_core.distributed import Group
from detr_core.model.files import CheckpointError, read_content, write_atomically


@dataclass
class Progress:
    """Where a training stands.

    step: optimiser steps done. history: recorded scalars, one mapping with `step` and `epoch` a record. sums: of the loss parts
    since the last record, over `summed` steps. best: the best validation score so far.
    """

    step: int = 0
    best: float | None = None
    summed: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def fingerprint(*parts: Any) -> str:
    """A digest of plain values: an interrupted training is only taken up by one with the same."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_state(
    path: Path, mark: str, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer, group: Group
) -> None:
    """Writes the state of all processes to `path` atomically, from the first process."""
    generators = group.gather(_generator_state(group.device))
    if group.first:
        content = {
            "fingerprint": mark,
            "progress": asdict(progress),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "generators": generators,
        }
        write_atomically(path, content)
    group.wait()


def load_state(
    path: Path, mark: str, model: nn.Module, optimizer: torch.optim.Optimizer, group: Group
) -> tuple[Progress, str | None]:
    """Takes up the state in `path`, if it is of this training.

    Returns where it stands and a sentence for the log: None where there was nothing to take up.
    """
    if not path.is_file():
        return Progress(), None
    try:
        content = read_content(path, torch.device("cpu"))
        same = content["fingerprint"] == mark
    except (CheckpointError, KeyError, TypeError):
        return Progress(), f"starting anew: the interrupted training in {path.name} can't be read"
    if not same:
        return Progress(), "starting anew: the interrupted training had other parameters or other data"
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    if len(content["generators"]) == group.size:
        _set_generator_state(content["generators"][group.rank], group.device)
    progress = Progress(**content["progress"])
    return progress, f"resuming after step {progress.step}"


def _generator_state(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_generator_state(states: list[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
