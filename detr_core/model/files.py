"""Files of weights: read without running code, written atomically."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detr_core.atomic import atomic_file
from detr_core.errors import ExpectedError


class CheckpointError(ExpectedError, ValueError):
    """A checkpoint that is missing, torn, hostile or of another kind; the message says which file and what to do."""


class PlainArguments:
    """Stands for the argument namespace that published checkpoints hold: its values, and no behaviour at all.

    The file's own class is never imported. Paths inside of a namespace become one of these too, without values.
    """

    __slots__ = ("values",)

    def __init__(self, *ignored: object) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.values = dict(state) if isinstance(state, dict) else {}


# Python 3.13 moved the paths.
_PATHS = [f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")]
_HARMLESS: list[Any] = [(PlainArguments, name) for name in ("argparse.Namespace", *_PATHS)]


def read_content(path: Path, device: torch.device) -> Any:
    """What a checkpoint file holds: tensors, plain values, and PlainArguments for an argument namespace.

    Raises CheckpointError where it can't be had, and for a file that asks for any other class or function, wherever in it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint; train one first or give another path")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a torn or hostile file can make the reader fail in any way
        if _first_bytes(path) == b"PK" and not zipfile.is_zipfile(path):  # begins as torch.save's archives do, and ends early
            raise CheckpointError(f"{path}: not a checkpoint but part of one, cut short; copy it again or train anew") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint that can be read without running code: {reason}") from None


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def write_atomically(path: Path, content: Any) -> None:
    """torch.save to `path` through a temporary file beside it that is on disk before it takes the name.

    Raises StorageError where the file system does not take the file.
    """
    with atomic_file(path, tensor_bytes(content)) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch's writer hides a full disk behind an error of its own
                raise error.__context__ from None
            raise


def tensor_bytes(content: Any) -> int:
    """The bytes of all tensors in nested dictionaries, lists and tuples: what their file takes, but for some kilobytes.

    Tensors that share their memory count once, as torch.save writes it once.
    """
    return sum(_storages(content).values())


def _storages(content: Any) -> dict[int, int]:
    # Bytes by the address of a tensor's memory.
    if isinstance(content, torch.Tensor):
        storage = content.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    if isinstance(content, Mapping):
        content = list(content.values())
    found: dict[int, int] = {}
    for part in content if isinstance(content, list | tuple) else ():
        found |= _storages(part)
    return found
