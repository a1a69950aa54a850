"""Reads files of weights without running code from them, and writes them atomically.

It reads the files of torch.save, and safetensors files, whose header can have texts beside the tensors. This project writes one
text there, under a name of its own: JSON of the plain values that a file of torch.save has beside the weights.
"""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from detr_core.atomic import atomic_file
from detr_core.errors import ExpectedError

SAFETENSORS = ".safetensors"  # the suffix of these files
_PLAIN_VALUES = "detr-workbench"  # the name of this project's text in a safetensors file


class CheckpointError(ExpectedError, ValueError):
    """A checkpoint is missing, incomplete, malicious or of another format. The message names the file and says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(re.sub(r"\s*\n\s*", " ", message))  # a value or a name that a file holds can have several lines


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

    The content of a safetensors file is a mapping of 'model' to the tensors, and of the plain values that this project wrote.
    Raises CheckpointError for a file that is missing, incomplete, damaged or unreadable, or that refers to any other class or
    function.
    """
    try:
        return _content(path, device)
    except OSError as error:
        raise CheckpointError(f"{path}: expected a file that can be read, found {error.strerror or error}") from None


def _content(path: Path, device: torch.device) -> Any:
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a file, found a folder; name the file in it, such as model{SAFETENSORS}")
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint; train one first or give another path")
    if path.suffix == SAFETENSORS or _first_bytes(path, 9)[8:] == b"{":  # after the length of the header
        return _safetensors_content(path, device)
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: expected a checkpoint, found an empty file; copy the file again, or train again")
    if (damaged := _damaged_part(path)) is not None:
        raise CheckpointError(
            f"{path}: expected a checkpoint, found a damaged one (in {damaged}); copy the file again, or train again"
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the reader can raise any error for a damaged or malicious file
        if _first_bytes(path, 2) == b"PK" and not zipfile.is_zipfile(path):  # a truncated archive of torch.save
            raise CheckpointError(
                f"{path}: expected a checkpoint, found a truncated one; copy the file again, or train again"
            ) from None
        raise CheckpointError(
            f"{path}: expected a checkpoint that can be read without running code, found {_content_of_error(error)}"
        ) from None


def _damaged_part(path: Path) -> str | None:
    """Returns the name of the first part of an archive of torch.save whose checksum is wrong; None if there is no such part.

    The reader of torch compares no checksums. An archive without any, which torch.save can write on request, is not checked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() if any(part.CRC for part in archive.infolist()) else None
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        ValueError,
    ):  # not an archive, or not one of torch.save
        return None


def _content_of_error(error: Exception) -> str:
    """Returns what torch found in a file that it can't read. Its advice to read the file by running its code is left out."""
    text = str(error) or type(error).__name__
    match = re.search(r"(?:GLOBAL|[Gg]lobal) (\S+\.\S+)|(Unsupported operand \d+)", text)
    if match is None:
        return f"another content ({text.splitlines()[0].removeprefix('Weights only load failed. ')[:200]})"
    return f"a reference to {match[1]}" if match[1] else f"another content ({match[2]})"


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _safetensors_content(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            texts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, which is no mapping
    except SafetensorError as error:
        problem = f"found {path.stat().st_size} bytes of a truncated or damaged one ({error})"
        raise CheckpointError(f"{path}: expected a complete safetensors file, {problem}; copy the file again") from None
    plain = json_mapping(texts.get(_PLAIN_VALUES, "{}"), f"{path}: {_PLAIN_VALUES}: expected JSON in the file's header")
    return {**plain, "model": tensors}


def json_mapping(text: str | bytes, expected: str) -> dict[str, Any]:
    """Returns the mapping that a text in JSON holds, else raises CheckpointError, which begins with `expected`."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{expected}, found {error}; copy the file again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{expected} that is a mapping, found a {type(content).__name__}; copy the file again")
    return content


def write_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content`, which maps 'model' to tensors and has plain values, as a safetensors file, atomically.

    Raises StorageError if the file system refuses the file.
    """
    tensors = {name: value.contiguous() for name, value in content["model"].items()}
    plain = {name: value for name, value in content.items() if name != "model"}
    texts = {"format": "pt", _PLAIN_VALUES: json.dumps(plain)}
    with atomic_file(path, tensor_bytes(tensors)) as temporary:
        save_file(tensors, temporary, texts)


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
