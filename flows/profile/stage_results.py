"""Finds the results of earlier stages, and checks before a stage begins that they exist and belong to its profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from detr_core.data.splits import DatasetError, Split, read_dataset
from detr_core.errors import ExpectedError
from detr_core.model.spec import kind_of
from flows.profile.paths import DEFAULT_PROFILE, Paths, relative

if TYPE_CHECKING:
    import torch

    from detr_core.model.checkpoint import Checkpoint
    from flows.profile.settings import Profile

OWNER = "profile.json"  # this file in a dataset folder names the profile that the dataset was made for


class StageError(ExpectedError, ValueError):
    """A stage can't begin, because a result of an earlier stage is missing. The message names it and the command to run."""


def write_owner(folder: Path, profile: str) -> None:
    """Writes into a dataset folder which profile it belongs to."""
    (folder / OWNER).write_text(json.dumps({"profile": profile}) + "\n", encoding="utf-8")


def dataset(paths: Paths) -> dict[str, Split]:
    """Returns the splits 'train' and 'val' of the profile's checked dataset.

    Raises DatasetError if the dataset is missing, can't be read or belongs to another profile.
    """
    unchecked_dataset(paths)  # the checked dataset refers to its images, so it must exist too
    return _owned(paths, paths.dataset, "checked dataset", "check")


def unchecked_dataset(paths: Paths) -> dict[str, Split]:
    """Returns the splits of the dataset as the data stage made it. Raises DatasetError as `dataset` does."""
    return _owned(paths, paths.data, "dataset", "data")


def _owned(paths: Paths, folder: Path, name: str, stage: str) -> dict[str, Split]:
    if not folder.is_dir():
        problem = f"there is no {name} of profile {paths.profile!r} yet"
        raise DatasetError(f"{relative(folder)}: {problem}; {_command_to_run(paths, stage)}")
    try:
        splits = read_dataset(folder)
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))["profile"]
    except (DatasetError, OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{relative(folder)}: the dataset is incomplete: {error}; {_command_to_run(paths, stage)}") from None
    if owner != paths.profile:
        raise DatasetError(
            f"{relative(folder / OWNER)}: expected a dataset of profile {paths.profile!r}, found one of {owner!r}; "
            f"{_command_to_run(paths, stage)}"
        )
    return splits


def require_masks(splits: Mapping[str, Split], settings: Profile, paths: Paths) -> None:
    """Raises DatasetError, which names file and key, unless the dataset has the masks that the profile's trainings need.

    This concerns mask heads, and detectors that learn masks by themselves.
    """
    from detr_core.train.mask_targets import MASK_HEAD
    from detr_core.train.mask_targets import require_masks as required
    from detr_core.train.masks import require_targets

    where, masks = relative(paths.dataset / "dataset.json"), settings.train_panoptic
    if masks is not None and "mask_head" in kind_of(settings.detector.kind).capabilities:
        required(splits, masks.targets, where, MASK_HEAD)
    require_targets(splits, settings.detector.kind, settings.train_detection.targets, where)


def result(paths: Paths, file: Path, stage: str) -> Path:
    """Returns `file`, a result of the stage. Raises StageError if it does not exist."""
    if not file.is_file():
        problem = f"there is no such result of profile {paths.profile!r} yet"
        raise StageError(f"{relative(file)}: {problem}; {_command_to_run(paths, stage)}")
    return file


def detector(paths: Paths) -> Path:
    """Returns the file of the detector's last checkpoint. Raises StageError if it does not exist."""
    return result(paths, paths.detection / "checkpoint.pt", "train_detection")


def studied_detector(settings: Profile, paths: Paths) -> Path:
    """Returns the file of the checkpoint that the studies evaluate: the detector, or the whole model if both learn jointly.

    Raises StageError if it does not exist.
    """
    return result(paths, paths.panoptic / "checkpoint.pt", "train_panoptic") if settings.trains_jointly else detector(paths)


def whole_model(paths: Paths) -> Path:
    """Returns the file of the checkpoint with the mask head, or the detector's checkpoint if no mask head was trained.

    Raises StageError if neither exists.
    """
    panoptic = paths.panoptic / "checkpoint.pt"
    return panoptic if panoptic.is_file() else detector(paths)


def checkpoint(path: Path, profile: str, device: torch.device) -> Checkpoint:
    """Loads the checkpoint in `path` to `device`. Raises CheckpointError if it can't be read or is another profile's."""
    from detr_core.model.checkpoint import load_checkpoint_of  # torch takes seconds to import

    return load_checkpoint_of(path, profile, device)


def device(gpus: tuple[int, ...] | None = None) -> torch.device:
    """Returns the device of a stage that doesn't train: the first of these GPUs, by default GPU 0, or the CPU without GPUs."""
    import torch

    return torch.device("cuda", gpus[0] if gpus else 0) if torch.cuda.is_available() else torch.device("cpu")


def _command_to_run(paths: Paths, stage: str) -> str:
    """Returns an advice that names the stage whose result is missing; DVC also runs the stages before it."""
    target = stage if paths.profile == DEFAULT_PROFILE else f"{relative(paths.dvc_folder / 'dvc.yaml')}:{stage}"
    return f"run `dvc repro {target}` or `python -m flows.{stage} --profile {paths.profile}` first"
