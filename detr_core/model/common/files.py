"""Reads files of weights without running code from them, and writes them atomically."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detr_core.atomic import atomic_file
from detr_core.errors import ExpectedError


class CheckpointError(ExpectedError, ValueError):
    """A checkpoint is missing, incomplete, malicious or of another format. The message names the file and says what to do."""


class PlainArguments:
    """Replaces the argument namespace in published checkpoints: it holds the values of the namespace and no code.

    The file's own class is never imported. A path inside of a namespace is replaced by an instance without values.
    """

    __slots__ = ("values",)

    def __init__(self, *ignored: object) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.values = dict(state) if isinstance(state, dict) else {}


# Python 3.13 moved the path classes to another module.
_PATHS = [f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")]
_HARMLESS: list[Any] = [(PlainArguments, name) for name in ("argparse.Namespace", *_PATHS)]


def read_content(path: Path, device: torch.device) -> Any:
    """Returns the content of a checkpoint file: tensors, plain values, and PlainArguments for an argument namespace.

    Raises CheckpointError for a file that is missing or unreadable, or that refers to any other class or function.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint; train one first or give another path")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the reader can raise any error for a damaged or malicious file
        if _first_bytes(path) == b"PK" and not zipfile.is_zipfile(path):  # a truncated archive of torch.save
            raise CheckpointError(f"{path}: expected a checkpoint, found a truncated one; copy it or train it again") from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: expected a checkpoint that can be read without running code: {reason}") from None


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def write_atomically(path: Path, content: Any) -> None:
    """Saves `content` with torch.save to a temporary file, which is flushed to the disk and then renamed to `path`.

    Raises StorageError if the file system refuses the file.
    """
    with atomic_file(path, tensor_bytes(content)) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch's writer replaces the error of a full disk by its own
                raise error.__context__ from None
            raise


def tensor_bytes(content: Any) -> int:
    """Returns the number of bytes of all tensors in nested dictionaries, lists and tuples, which is about the size of their file.

    Memory that several tensors share counts once, because torch.save writes it once.
    """
    return sum(_storages(content).values())


def _storages(content: Any) -> dict[int, int]:
    # Returns address of a tensor's memory -> number of bytes.
    if isinstance(content, torch.Tensor):
        storage = content.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    if isinstance(content, Mapping):
        content = list(content.values())
    storages: dict[int, int] = {}
    for part in content if isinstance(content, list | tuple) else ():
        storages |= _storages(part)
    return storages
