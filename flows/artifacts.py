"""What earlier stages made, found and checked before a stage begins: there, whole and of this profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detr_core.data.dataset import DatasetError, Split, read_dataset
from detr_core.errors import ExpectedError
from flows.paths import DEFAULT_PROFILE, Paths, relative

if TYPE_CHECKING:
    import torch

    from detr_core.model.checkpoint import Checkpoint

OWNER = "profile.json"  # in a dataset folder: the profile that it was made for


class StageError(ExpectedError, ValueError):
    """A stage that can't begin, for an earlier one has not run. The message names what is missing and what makes it."""


def claim(folder: Path, profile: str) -> None:
    """Notes in a dataset folder whose it is."""
    (folder / OWNER).write_text(json.dumps({"profile": profile}) + "\n", encoding="utf-8")


def dataset(paths: Paths) -> dict[str, Split]:
    """The splits 'train' and 'val' of the profile's dataset, as checked.

    Raises DatasetError where there is none, it can't be read or it is another profile's.
    """
    unchecked_dataset(paths)  # whose images it points to
    return _owned(paths, paths.dataset, "checked dataset", "check")


def unchecked_dataset(paths: Paths) -> dict[str, Split]:
    """The same as the data stage made it; errors likewise."""
    return _owned(paths, paths.data, "dataset", "data")


def _owned(paths: Paths, folder: Path, what: str, stage: str) -> dict[str, Split]:
    if not folder.is_dir():
        raise DatasetError(f"{relative(folder)}: there is no {what} of profile {paths.profile!r} yet; {_run(paths, stage)}")
    try:
        splits = read_dataset(folder)
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))["profile"]
    except (DatasetError, OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{relative(folder)}: not a whole dataset: {error}; {_run(paths, stage)}") from None
    if owner != paths.profile:
        raise DatasetError(
            f"{relative(folder / OWNER)}: expected a dataset of profile {paths.profile!r}, found one of {owner!r}; "
            f"{_run(paths, stage)}"
        )
    return splits


def result(paths: Paths, file: Path, stage: str) -> Path:
    """`file`, which that stage writes. Raises StageError where it isn't there."""
    if not file.is_file():
        raise StageError(f"{relative(file)}: there is no such result of profile {paths.profile!r} yet; {_run(paths, stage)}")
    return file


def detector(paths: Paths) -> Path:
    """The detector's last checkpoint. Raises StageError where there is none."""
    return result(paths, paths.detection / "checkpoint.pt", "train_detection")


def whole_model(paths: Paths) -> Path:
    """The checkpoint with the mask head, or the detector's where none was trained (data without masks).

    Raises StageError where there is neither.
    """
    panoptic = paths.panoptic / "checkpoint.pt"
    return panoptic if panoptic.is_file() else detector(paths)


def checkpoint(path: Path, profile: str, device: torch.device) -> Checkpoint:
    """The detector in `path`, on `device`. Raises CheckpointError where it can't be read or is another profile's."""
    from detr_core.model.checkpoint import CheckpointError, load_checkpoint

    loaded = load_checkpoint(path, device)
    found = loaded.meta.get("profile")
    if found != profile:
        raise CheckpointError(
            f"{relative(path)}: expected a checkpoint of profile {profile!r}, found one of {found!r}; train this profile's own"
        )
    return loaded


def targets(split: Split) -> Literal["instances", "panoptic"]:
    """Which annotations of a split name all of its categories: the panoptic ones where there are some."""
    return "instances" if split.panoptic is None else "panoptic"


def device(gpus: tuple[int, ...] | None = None) -> torch.device:
    """Where a stage that doesn't train computes: the first GPU, of these where some are named, or the CPU."""
    import torch

    return torch.device("cuda", gpus[0] if gpus else 0) if torch.cuda.is_available() else torch.device("cpu")


def _run(paths: Paths, stage: str) -> str:
    file = "" if paths.profile == DEFAULT_PROFILE else f" {relative(paths.dvc_folder / 'dvc.yaml')}"
    return f"run `dvc repro{file}` or `python -m flows.{stage} --profile {paths.profile}` first"
