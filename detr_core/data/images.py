"""Image files to tensors, whatever way their pixels are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from detr_core.data.dataset import DatasetError


def read_image(path: Path, size: tuple[int, int]) -> Tensor:
    """The image as uint8 RGB [3, h, w]; greyscale, CMYK, palette, transparent and 16-bit images are converted.

    size: (h, w) that the annotation file gives, in whose frame its boxes are. The image is turned upright by its EXIF entry
    unless only the unturned one has that size. Raises DatasetError, which names the file, for one that is missing, broken,
    of another size or of another format than JPEG, PNG, WebP and GIF.
    """
    image = _decoded(path, upright=True)
    if image.shape[1:] != size:
        image = _decoded(path, upright=False)
    if image.shape[1:] != size:
        raise DatasetError(f"{path}: expected {_written(size)} pixels as annotated, found {_written(image.shape[1:])}")
    return image


def read_segment_ids(path: Path, size: tuple[int, int]) -> Tensor:
    """The segment id of every pixel of a panoptic PNG, int32 [h, w]: R + 256 G + 256^2 B. size and errors as `read_image`."""
    image = _decoded(path, upright=False).int()
    if image.shape[1:] != size:
        raise DatasetError(f"{path}: expected {_written(size)} pixels as its image, found {_written(image.shape[1:])}")
    return image[0] + 256 * image[1] + 256**2 * image[2]


def _written(size: tuple[int, ...]) -> str:
    return f"{size[1]} x {size[0]}"


def _decoded(path: Path, upright: bool) -> Tensor:
    try:
        content = torch.from_numpy(np.fromfile(path, dtype=np.uint8))
        image: Tensor = decode_image(content, mode=ImageReadMode.RGB, apply_exif_orientation=upright)
    except FileNotFoundError:
        raise DatasetError(f"{path}: expected an image, found no such file") from None
    except (RuntimeError, OSError) as error:
        reason = str(error).split(": ")[-1].splitlines()[0]
        raise DatasetError(f"{path}: expected a JPEG, PNG, WebP or GIF image, found one that can't be read ({reason})") from None
    if image.dtype == torch.uint16:
        image = (image.int() >> 8).to(torch.uint8)
    return image[0] if image.ndim == 4 else image  # the first picture of an animation
