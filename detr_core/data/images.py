"""Reads image files of any pixel format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.ExifTags import Base

from detr_core.data.splits import DatasetError
from detr_core.data.values import Ranges, eight_bits

if TYPE_CHECKING:
    from torch import Tensor


def read_image(path: Path, size: tuple[int, int], ranges: Ranges | None = None) -> Tensor:
    """Returns the image as a uint8 RGB tensor [3, h, w]. The arguments and errors are those of `read_pixels`."""
    import torch  # this takes a second, and commands that need no tensors do without it

    return torch.from_numpy(read_pixels(path, size, ranges)).permute(2, 0, 1)


def read_pixels(path: Path, size: tuple[int, int], ranges: Ranges | None = None) -> npt.NDArray[np.uint8]:
    """Returns the image as uint8 RGB [h, w, 3]. Greyscale, CMYK, palette, transparent and deeper images are converted.

    size: (h, w) of the annotation file; boxes refer to this size. The image is rotated upright by its EXIF orientation, unless
    only the unrotated image has that size. ranges: sample type -> the values by which images of more than 8 bits per value are
    scaled (see `eight_bits`). Raises DatasetError, which names the file, for a file that is missing, broken or of another size.
    """
    with _opened(path) as image:
        rotated = image.getexif().get(Base.Orientation, 1) != 1
        if not rotated:  # checked before decoding, because a wrong header may request gigabytes of memory
            _require_size(path, image, size, "as annotated")
        image = eight_bits(image, lambda: Image.open(path), ranges or {})
        if rotated:
            upright = ImageOps.exif_transpose(image)
            image = upright if (upright.height, upright.width) == size else image
            _require_size(path, image, size, "as annotated")
        # The image is decoded at full size. A JPEG could be decoded at half its size or less if it is resized to that anyway. On
        # COCO's images this changes one pixel in a hundred by more than 17 of 255, and no profile for COCO resizes that much.
        return _rgb(image)


def upright_size(path: Path) -> tuple[int, int]:
    """Returns (h, w) of the image after its EXIF rotation. It reads only the header. Raises DatasetError as `read_image` does."""
    with _opened(path) as image:
        rotated = image.getexif().get(Base.Orientation, 1) >= 5  # orientations that rotate by 90 degrees
        return (image.width, image.height) if rotated else (image.height, image.width)


def read_segment_ids(path: Path, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Returns the segment id of every pixel of a panoptic PNG, [h, w]: R + 256 G + 256^2 B.

    size: (h, w) of the image. Raises DatasetError for a file that is missing, broken or of another size.
    """
    with _opened(path) as image:
        _require_size(path, image, size, "like its image")
        red, green, blue = np.moveaxis(_rgb(image).astype(np.int32), 2, 0)
    return np.asarray(red + 256 * green + 256**2 * blue)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise DatasetError(f"{path}: expected an image, found no such file") from None
    except DatasetError:
        raise
    except Exception as error:  # Pillow's decoders can raise any error for a truncated or manipulated file
        raise DatasetError(f"{path}: expected an image, found a file that can't be read as one ({error})") from None


def _require_size(path: Path, image: Image.Image, size: tuple[int, int], origin: str) -> None:
    if (image.height, image.width) != size:
        expected = f"{size[1]} x {size[0]} pixels {origin}"
        raise DatasetError(f"{path}: expected {expected}, found {image.width} x {image.height}")


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
