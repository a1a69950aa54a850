"""Saves and loads the state of a training between two optimizer steps, from which it continues bit for bit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from detr_core.atomic import remove_leftovers
from detr_core.distributed import ProcessContext
from detr_core.model.common.files import CheckpointError, read_content, tensor_bytes, write_atomically
from detr_core.storage import require_space
from detr_core.train.optimizer import load_optimizer
from detr_core.wording import counted


@dataclass(frozen=True)
class TrainingFiles:
    """The files that a training writes. state: the state to resume from. last, best: checkpoints of the detector."""

    state: Path
    last: Path
    best: Path


@dataclass
class Progress:
    """The progress of a training.

    step: the number of optimizer steps done. best: the best validation score so far. sums: the sums of the loss terms over the
    `summed` steps since the last record. history: recorded scalars, one mapping with `step` and `epoch` per record.
    """

    step: int = 0
    best: float | None = None
    summed: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def add(self, parts: dict[str, float]) -> None:
        """Adds the loss of one step to the sums. parts: the terms of the loss by name."""
        self.summed += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def is_validated(self) -> bool:
        """Returns whether the history contains the metrics of a validation at this step."""
        last = self.history[-1] if self.history else {"step": -1}
        return last["step"] == self.step and any(name.startswith("val/") for name in last)


def fingerprint(*parts: Any) -> str:
    """Returns a digest of plain values. A training resumes only from a state with the same fingerprint."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_state(
    path: Path,
    fingerprint: str,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    process: ProcessContext,
) -> None:
    """Writes the state of all processes to `path` atomically. The first process writes the file."""
    generators = process.gather(_generator_state(process.device))
    if process.first:
        content = {
            "fingerprint": fingerprint,
            "progress": asdict(progress),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "generators": generators,
        }
        write_atomically(path, content)
    process.wait()


def load_state(
    path: Path,
    fingerprint: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    process: ProcessContext,
    seed: int,
) -> tuple[Progress, str | None]:
    """Loads the state in `path` into the model, the optimizer and the schedule, if it belongs to this training.

    `fingerprint` decides whether it does. Returns the progress and a sentence for the log, which is None if there is no state.
    Only the first process reads the file, which the other machines of a training need not have.
    seed: that of the training. The generators of random numbers, which dropout uses, continue where they stopped. If the state
    is from another number of processes or from another type of device, each process gets a generator seeded with (seed, rank,
    step) instead, and the sentence says so.
    """
    content, note = process.from_first(_read_state(path, fingerprint) if process.first else None)
    if content is None:
        return Progress(), note
    model.load_state_dict(content["model"])
    load_optimizer(optimizer, content["optimizer"])
    schedule.load_state_dict(content["schedule"])
    progress, generators = Progress(**content["progress"]), content["generators"]
    note = f"resuming after step {progress.step}"
    if len(generators) == process.size and len(generators[process.rank]) == len(_generator_state(process.device)):
        _set_generator_state(generators[process.rank], process.device)
        return progress, note
    words = np.random.SeedSequence([seed, process.rank, progress.step]).generate_state(2)
    torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
    counts = f"{counted(process.size, 'process', 'processes')} instead of {len(generators)}"
    if len(generators) == process.size:
        counts = f"another type of device ({process.device.type})"
    return progress, f"{note}, with {counts}; dropout draws new random numbers, all else continues exactly"


def _read_state(path: Path, fingerprint: str) -> tuple[dict[str, Any] | None, str | None]:
    """Returns the content of a state file, or None and the reason why the training starts from the first step, if any."""
    if not path.is_file():
        return None, None
    try:
        content = read_content(path, torch.device("cpu"))
        same = content["fingerprint"] == fingerprint
    except (CheckpointError, KeyError, TypeError):
        return None, f"starting from the first step, because the interrupted training in {path.name} can't be read"
    if not same:
        return None, "starting from the first step, because the interrupted training had other parameters or other data"
    return content, None


def require_room(files: TrainingFiles, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raises StorageError if the file system has no room for the files of a training.

    The files are the state and two checkpoints, and a second copy of each while it replaces an earlier file. Temporary files of a
    killed training are removed first.
    """
    for file in (files.state, files.last, files.best):
        remove_leftovers(file)
    weights = tensor_bytes(model.state_dict())
    learned = sum(tensor_bytes(parameters["params"]) for parameters in optimizer.param_groups)
    moments = 1 if isinstance(optimizer, torch.optim.SGD) else 2  # values that the optimizer stores for every learned weight
    state = weights + moments * learned
    existing_bytes = sum(file.stat().st_size for file in (files.state, files.last, files.best) if file.is_file())
    require_space(
        files.state.parent, max(0, 2 * state + 3 * weights - existing_bytes), "the state and the checkpoints of the training"
    )


def _generator_state(device: torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_generator_state(states: list[torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
