"""Image files become tensors here, whatever way their pixels are stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from PIL.ExifTags import Base
from torch import Tensor

from detr_core.data.dataset import DatasetError
from detr_core.data.values import Ranges, eight_bits


def read_image(path: Path, size: tuple[int, int], ranges: Ranges | None = None) -> Tensor:
    """The image as uint8 RGB [3, h, w]; greyscale, CMYK, palette, transparent and deeper images are converted.

    size: (h, w) that the annotation file gives, in whose frame its boxes are. The image is turned upright by its EXIF entry,
    unless only the unturned one has that size. ranges: how images of more than 8 bits a value are scaled, see `eight_bits`.
    Raises DatasetError, which names the file, for one that is missing, broken or of another size.
    """
    with _opened(path) as image:
        turned = image.getexif().get(Base.Orientation, 1) != 1
        if not turned:  # before the pixels are read: a header that lies about the size may ask for gigabytes
            _require_size(path, image, size, "as annotated")
        image = eight_bits(image, lambda: Image.open(path), ranges or {})
        if turned:
            upright = ImageOps.exif_transpose(image)
            image = upright if (upright.height, upright.width) == size else image
            _require_size(path, image, size, "as annotated")
        # All pixels, though a JPEG could be decoded at half its size, or less, where it is made that small anyway. Measured on
        # COCO's images, that changes one pixel in a hundred by more than 17 of 255; and no recipe of COCO makes one that small.
        return torch.from_numpy(_rgb(image)).permute(2, 0, 1)


def upright_size(path: Path) -> tuple[int, int]:
    """(h, w) of the image, turned upright by its EXIF entry; only its header is read. Errors as `read_image`."""
    with _opened(path) as image:
        turned = image.getexif().get(Base.Orientation, 1) >= 5  # by 90 degrees to either side
        return (image.width, image.height) if turned else (image.height, image.width)


def read_segment_ids(path: Path, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """The segment id of every pixel of a panoptic PNG, [h, w]: R + 256 G + 256^2 B. size and errors as `read_image`."""
    with _opened(path) as image:
        _require_size(path, image, size, "as its image has")
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
    except Exception as error:  # a file cut short, damaged or hostile can make Pillow's decoders fail in any way
        raise DatasetError(f"{path}: expected an image, found one that can't be read ({error})") from None


def _require_size(path: Path, image: Image.Image, size: tuple[int, int], whose: str) -> None:
    if (image.height, image.width) != size:
        expected = f"{size[1]} x {size[0]} pixels {whose}"
        raise DatasetError(f"{path}: expected {expected}, found {image.width} x {image.height}")


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
