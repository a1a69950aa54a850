"""Reads images of more than 8 bits per value, and scales them to 8 bits by a range of values.

An 8-bit image is never changed. The file of a deeper image does not state the meaning of its values: 16 bits may hold 12, and a
float can be anything. A dataset therefore states its ranges, one for each sample type, which the data check determines. Every
reader scales by these ranges: values up to the low end become 0, values from the high end on become 255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.ExifTags import Base

Range = tuple[float, float]
Ranges = Mapping[str, Range]  # sample type -> lowest and highest value

SAMPLE_TYPES = ("16-bit", "32-bit", "float")
_LARGEST = 65535  # the largest 16-bit value
_TAIL = 0.001  # share of an image's values that its range ignores at either end, because of dead and hot pixels

# Pillow keeps only the upper byte of each 16-bit colour. With the opposite byte order it keeps the lower byte.
_SWAPPED = {
    **{f"{mode};16{order}": f"{mode};16{other}" for mode in ("RGB", "RGBA", "RGBX") for order, other in ("BL", "LB", "NB")},
    "LA;16B": "RGBA",  # 16-bit grey and alpha are four bytes: the upper and the lower byte of each
}


@dataclass(frozen=True)
class ValueSpread:
    """The range of an image's values. kind: the sample type. low, high: the range without the tails; equal for a single value."""

    kind: str
    low: float
    high: float


def sample_type(image: Image.Image) -> str | None:
    """Returns the sample type, one of SAMPLE_TYPES, from the header of an image; None for an 8-bit image."""
    if image.mode in ("I", "F"):
        return "32-bit" if image.mode == "I" else "float"
    return "16-bit" if image.mode.startswith("I;16") or _raw_mode(image) in _SWAPPED else None


def first_sample_type(files: Iterable[Path]) -> str | None:
    """Returns the sample type of the first readable file of more than 8 bits per value; None without such a file."""
    for file in files:
        try:
            with Image.open(file) as image:
                kind = sample_type(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        if kind is not None:
            return kind
    return None


def deep_values(image: Image.Image, reopen: Callable[[], Image.Image]) -> tuple[str, npt.NDArray[Any]] | None:
    """Returns the sample type and the values, [h, w] or [h, w, 3], of an image of more than 8 bits per value, else None.

    image: an opened image whose pixels have not been read. reopen: a function that opens the same file once more.
    """
    kind = sample_type(image)
    if kind is None:
        return None
    if image.mode in ("I", "F"):
        return kind, np.asarray(image)
    if image.mode.startswith("I;16"):
        return kind, np.asarray(image).astype(np.uint16)  # in this machine's byte order
    mode = _raw_mode(image)
    if mode == "LA;16B":
        _reinterpret(image, "RGBA")
        pixels = np.asarray(image).astype(np.uint16)
        return kind, pixels[..., 0] << 8 | pixels[..., 1]
    with reopen() as low_bytes_image:
        _reinterpret(low_bytes_image, _SWAPPED[mode])
        upper, lower = np.asarray(image)[..., :3].astype(np.uint16), np.asarray(low_bytes_image)[..., :3]
    return kind, upper << 8 | lower


def value_spread_of(kind: str, values: npt.NDArray[Any]) -> ValueSpread:
    """Returns the range of an image's values, without the thousandth part at either end unless only one value would remain."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return ValueSpread(kind, 0.0, 0.0)
    low, high = np.quantile(finite, [_TAIL, 1 - _TAIL], method="nearest")
    if low == high:
        low, high = finite.min(), finite.max()
    return ValueSpread(kind, float(low), float(high))


def ranges_of(spreads: list[ValueSpread]) -> dict[str, Range]:
    """Returns the ranges of a dataset: sample type -> (lowest, highest value) over all images, without images of one value."""
    ranges: dict[str, Range] = {}
    for spread in spreads:
        if spread.low < spread.high:
            low, high = ranges.get(spread.kind, (spread.low, spread.high))
            ranges[spread.kind] = (min(low, spread.low), max(high, spread.high))
    return ranges


def eight_bits(image: Image.Image, reopen: Callable[[], Image.Image], ranges: Ranges) -> Image.Image:
    """Returns the image itself if it has 8 bits per value, else an 8-bit copy, scaled by the range of its sample type.

    image: an opened image whose pixels have not been read. reopen: a function that opens the same file once more. ranges: sample
    type -> (low, high). If it lacks the type, the range is that of the file: for 16 bits it covers as many bits as the highest
    value needs, for other types it goes from the lowest value to the highest. The copy keeps the EXIF orientation.
    """
    deep = deep_values(image, reopen)
    if deep is None:
        return image
    kind, values = deep
    orientation = image.getexif().get(Base.Orientation, 1)  # read only now, because Pillow rotates a TIFF when it decodes it
    copy = Image.fromarray(to_8_bits(values, ranges.get(kind) or _own_range(kind, values)))
    copy.getexif()[Base.Orientation] = orientation
    return copy


def to_8_bits(values: npt.NDArray[Any], limits: Range) -> npt.NDArray[np.uint8]:
    """Returns the values as 0..255, in 256 equal steps from the lower to the upper limit. NaN becomes 0."""
    if values.dtype == np.uint16:
        table = _steps(np.arange(_LARGEST + 1), limits)
        return np.asarray(table[values])
    return _steps(values, limits)


def _steps(values: npt.NDArray[Any], limits: Range) -> npt.NDArray[np.uint8]:
    low, high = limits
    finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    steps: npt.NDArray[np.uint8] = np.clip((finite - low) * (256 / (high - low)), 0, 255).astype(np.uint8)
    return steps


def _own_range(kind: str, values: npt.NDArray[Any]) -> Range:
    if kind == "16-bit":
        return 0.0, float(2 ** int(values.max()).bit_length() - 1) or 1.0
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return low, high if high > low else low + 1


def _raw_mode(image: Image.Image) -> str:
    # Returns Pillow's raw mode, the layout of the file's bytes; '' if the tiles differ or there is no file.
    layouts = [tile[3] for tile in getattr(image, "tile", [])]
    modes = {str(layout[0] if isinstance(layout, tuple) and layout else layout) for layout in layouts}
    return modes.pop() if len(modes) == 1 else ""


def _reinterpret(image: Image.Image, mode: str) -> None:
    """Makes Pillow decode the file's bytes with another raw mode."""

    def changed(args: Any) -> Any:
        return (mode, *args[1:]) if isinstance(args, tuple) else mode

    assert isinstance(image, ImageFile.ImageFile)
    image.tile = [tile._replace(args=changed(tile.args)) for tile in image.tile]
