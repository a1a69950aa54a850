"""Finds the checkpoint that a profile or a command line names by a path or an address, and downloads it if necessary."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flows.profile.paths import ROOT, SHARED

FILES_OF_A_MODEL = ("model.safetensors", "pytorch_model.bin")

if TYPE_CHECKING:
    import torch

    from detr_core.model.checkpoint import Checkpoint
    from detr_core.model.common.config import KindConfig
    from detr_core.train.config import InitConfig
    from detr_core.train_mask_head.config import PanopticConfig


def local_file(checkpoint: str, sha256: str | None) -> Path:
    """Returns the file that `checkpoint` names: a path relative to the project, or an address, which is downloaded.

    Of a folder that Hugging Face's libraries have written it is the file of the weights, the safetensors file if there are two.
    Downloads are kept in .state/checkpoints/. sha256: the checksum of the file, which is required for an address; a path without
    it is not checked. Raises CheckpointError if the file is missing, can't be downloaded, or has another checksum.
    """
    from detr_core.checksums import digest
    from detr_core.download.http import DownloadError
    from detr_core.download.transfer import is_address
    from detr_core.download.weights import fetch
    from detr_core.model.common.files import CheckpointError

    if is_address(checkpoint):
        if sha256 is None:
            raise CheckpointError(f"{checkpoint}: expected the sha256 of the file at this address, found none; add the sha256")
        try:
            return fetch(checkpoint, sha256, SHARED / "checkpoints")
        except DownloadError as error:
            raise CheckpointError(str(error)) from None
    path = ROOT / checkpoint
    if os.path.isdir(path):
        weights = [path / name for name in FILES_OF_A_MODEL if os.path.isfile(path / name)]
        if not weights:
            expected = f"a file, or a folder of Hugging Face's with {' or '.join(FILES_OF_A_MODEL)}"
            raise CheckpointError(f"{checkpoint}: expected {expected}, found a folder without them; name the file of the weights")
        path = weights[0]
    if not os.path.isfile(path):  # also without an error for a path that no file can have
        raise CheckpointError(f"{checkpoint}: expected a file, found none; name a checkpoint file, or an address with its sha256")
    if sha256 is not None and (actual := digest(path)) != sha256:
        raise CheckpointError(f"{checkpoint}: expected a file with sha256 {sha256}, found one with {actual}")
    return path


def initial(init: InitConfig | None) -> Path | None:
    """Returns the checkpoint that a training starts from; None if the profile names none. Raises the errors of `local_file`."""
    return None if init is None else local_file(init.checkpoint, init.sha256)


def initial_mask_head(config: PanopticConfig, detector: KindConfig) -> Path | None:
    """Returns the checkpoint whose mask head a training starts from; None if the profile names none.

    Raises the errors of `local_file`, and ConfigError if the checkpoint has no mask head that fits this detector.
    """
    file = initial(config.init)
    if file is not None:
        import torch

        from detr_core.model.checkpoint import as_detr, load_checkpoint
        from detr_core.model.spec import build_detector
        from detr_core.train_mask_head.initial import mask_head_from

        trained = load_checkpoint(file, torch.device("cpu"), detector.backbone.dilation)
        whole = build_detector(detector, 1, config.attention_maps)
        mask_head_from(whole, as_detr(trained.model, "train_panoptic.init", file))
    return file


def load_named(arguments: argparse.Namespace, device: torch.device) -> Checkpoint:
    """Loads the checkpoint that the command line names. Raises CheckpointError if it is not available."""
    from detr_core.model.checkpoint import load_checkpoint

    return load_checkpoint(named_file(arguments), device, arguments.dilation)


def named_file(arguments: argparse.Namespace) -> Path:
    """Returns the file of the checkpoint that the command line names. Raises CheckpointError if it is not available."""
    where = arguments.checkpoint
    path = where if "://" in where else str(Path(where).absolute())  # a path is relative to the working directory
    return local_file(path, arguments.sha256)
