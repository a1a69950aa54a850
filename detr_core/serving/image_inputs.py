"""Reads the images that callers pass to a model: paths, base64 text or pixels; one image, or a list, table or array of images."""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr_core.data.images import read_image, upright_size
from detr_core.data.splits import DatasetError
from detr_core.data.values import Ranges

COLUMN = "image"  # the column of a table, or the key of a mapping, that holds the images
EXPECTED = "a path, base64 text of an image file, or RGB pixels [h, w, 3] from 0 to 255"
_SHOWN = 60  # number of characters of a wrong input that an error shows


def images_of(inputs: Any, folder: Path | None = None, ranges: Ranges | None = None) -> tuple[list[Tensor], bool]:
    """Returns the images in `inputs` as uint8 RGB [3, h, w], and whether `inputs` is a single image and not a collection.

    inputs: one image, or a list, an array or a table of images. An image is a path (text or Path), the base64 text of an image
    file (also as a `data:` address), integer pixels [h, w, 3] as an array or as nested lists, or a mapping with such an image
    under 'image' or 'b64'. A table is a pandas DataFrame whose images are in its column 'image', or in its only column.
    folder: the folder that paths are relative to and must lie in; None allows any path. ranges: sample type -> the values by
    which files of more than 8 bits per value are scaled; None scales each file by its own range.
    Raises ValueError for other inputs and for a path outside of `folder`, DatasetError for a file that can't be read.
    """
    if hasattr(inputs, "columns") and hasattr(inputs, "iloc"):
        return [_image(item, folder, ranges) for item in _column(inputs)], False
    if isinstance(inputs, Mapping):
        return images_of(_of_mapping(inputs), folder, ranges)
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OU":
        inputs = inputs.tolist()
    # three nested levels are the pixels of one image
    is_collection = isinstance(inputs, (list, tuple, np.ndarray)) and _depth(inputs) != 3
    return (
        ([_image(item, folder, ranges) for item in inputs], False) if is_collection else ([_image(inputs, folder, ranges)], True)
    )


def _image(image: Any, folder: Path | None, ranges: Ranges | None) -> Tensor:
    if isinstance(image, Mapping):
        image = _of_mapping(image)
    if isinstance(image, np.ndarray) and image.ndim == 0:
        image = image.item()
    if isinstance(image, bytes):
        return _decoded(image, ranges)
    if isinstance(image, str):
        content = _from_base64(image)
        return _file(image, folder, ranges) if content is None else _decoded(content, ranges)
    if isinstance(image, Path):
        return _file(str(image), folder, ranges)
    if isinstance(image, (np.ndarray, list, tuple)):
        return _pixels(image)
    raise _unexpected(image)


def _file(text: str, folder: Path | None, ranges: Ranges | None) -> Tensor:
    path = Path(text)
    if folder is not None:
        # Links are followed, because a request can't create one. `..` is resolved first, because it could lead out of the folder.
        path = Path(os.path.normpath(folder / text))
        if not path.is_relative_to(folder):
            raise ValueError(f"{_short(text)}: expected a path below {folder}, found one outside of it; send the image as base64")
    try:
        exists = path.is_file()
    except (OSError, ValueError):  # a text that can't be a path
        exists = False
    if not exists:
        raise ValueError(f"{_short(text)}: expected {EXPECTED}, found text that is neither a file's path nor base64 of an image")
    return read_image(path, upright_size(path), ranges)


def _from_base64(text: str) -> bytes | None:
    """Returns the bytes of the image file that this text encodes; None if it encodes no image file, and therefore is a path."""
    _, mark, content = text.partition(";base64,") if text.startswith("data:") else ("", "", text)
    if not mark and "." in text[-5:]:
        return None  # base64 has no dot
    try:
        decoded = base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if mark or decoded.startswith(_BEGINNINGS) else None


_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")  # first bytes of common image formats


def _decoded(content: bytes, ranges: Ranges | None) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image"
        file.write_bytes(content)
        try:
            return read_image(file, upright_size(file), ranges)
        except DatasetError:
            raise DatasetError(
                f"expected the base64 text of an image file, found {len(content):,} bytes that can't be read as an image"
            ) from None


def _pixels(pixels: Any) -> Tensor:
    try:
        array = np.array(pixels.tolist() if isinstance(pixels, np.ndarray) and pixels.dtype == object else pixels)
    except ValueError:  # rows of different lengths
        raise _unexpected(pixels) from None
    if array.dtype.kind not in "iu" or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise _unexpected(array)
    if array.min() < 0 or array.max() > 255:
        raise _unexpected(array)
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.uint8))).permute(2, 0, 1)


def _column(table: Any) -> Iterable[Any]:
    names = list(table.columns)
    if COLUMN not in names and len(names) != 1:
        raise ValueError(f"expected a table with a column {COLUMN!r}, found the columns {names}")
    values: list[Any] = table[COLUMN if COLUMN in names else names[0]].tolist()
    # MLflow turns {"image": pixels} into a table with one line of pixels per row.
    return [values] if values and _depth(values[0]) == 2 else values


def _of_mapping(mapping: Mapping[str, Any]) -> Any:
    for name in (COLUMN, "b64"):
        if name in mapping:
            return mapping[name]
    raise ValueError(f"expected an image under {COLUMN!r} or 'b64', found the keys {list(mapping)}")


def _depth(value: Any) -> int:
    """Returns the nesting depth of the lists in `value`, including the dimensions of an array in them."""
    depth = 0
    while isinstance(value, (list, tuple)) and value:
        depth, value = depth + 1, value[0]
    return depth + (value.ndim if isinstance(value, np.ndarray) else 0)


def _unexpected(value: Any) -> ValueError:
    description = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu" and value.size > 0:
        description += f" from {value.min()} to {value.max()}"
    return ValueError(f"image: expected {EXPECTED}; found {description}")


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
