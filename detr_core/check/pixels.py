"""Checks one image file and its panoptic PNG: whether they can be read, have the annotated size, and what they contain."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from detr_core.data.values import ValueSpread, deep_values, value_spread_of

Size = tuple[int, int]  # (h, w)
Faults = list[tuple[str, str]]  # kind of finding, detail

# The path of a file that is named by the hash of its content, as in DVC's cache. A link into such a cache is as good as a copy.
_BY_CONTENT = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}$")


@dataclass(frozen=True)
class CheckedImage:
    """What the check read from one image file.

    digest: the hash of the file's content, None if the file is missing or empty. faults: at most one fault of the image.
    spread: the values of an image of more than 8 bits per value, else None. constant: whether an 8-bit image has one colour.
    """

    digest: bytes | None
    faults: Faults
    spread: ValueSpread | None = None
    constant: bool = False


def check_image(path: Path, size: Size, folder: Path) -> CheckedImage:
    """Reads and decodes an image.

    size: the annotated size (h, w). folder: the resolved folder of the images; a file that a link leads outside of it is a fault.
    """
    data, fault = _read(path, folder)
    if fault is not None:
        return CheckedImage(None, [fault])
    digest = hashlib.blake2b(data, digest_size=16).digest()
    try:
        with Image.open(io.BytesIO(data)) as image:
            rotated = image.getexif().get(Base.Orientation, 1) >= 5
            actual = (image.height, image.width)
            if size not in ({actual, actual[::-1]} if rotated else {actual}):
                # The pixels are not decoded, because a wrong header may request gigabytes of memory.
                return CheckedImage(digest, [("image_size", f"annotated as {size[1]} x {size[0]}, is {actual[1]} x {actual[0]}")])
            deep = deep_values(image, lambda: Image.open(io.BytesIO(data)))
            if deep is not None:
                return CheckedImage(digest, [], value_spread_of(*deep))
            # A JPEG that is decoded at an eighth of its size is also read to its last byte, in half the time.
            reduced = image.draft(image.mode, (image.width // 8, image.height // 8)) is not None
            constant = _has_one_color(image)
        if constant and reduced:  # decoding at an eighth of the size may have lost fine detail
            with Image.open(io.BytesIO(data)) as image:
                constant = _has_one_color(image)
    except UnidentifiedImageError:
        return CheckedImage(digest, [("image_unreadable", "not an image")])
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError, Image.DecompressionBombError) as error:
        kind = "image_truncated" if "truncated" in str(error).lower() else "image_unreadable"
        return CheckedImage(digest, [(kind, str(error)[:120])])
    return CheckedImage(digest, [], constant=constant)


def check_panoptic(
    path: Path, size: Size, segments: Mapping[int, float], folder: Path
) -> tuple[Faults, list[tuple[str, int, str]]]:
    """Compares a panoptic PNG with the annotation file.

    segments: segment id -> area in pixels in the annotation file. folder: the resolved folder of the PNGs.
    Returns the faults of the whole file, and (kind, segment id, detail) for each fault of a segment.
    """
    data, fault = _read(path, folder)
    if fault is not None:
        return [("panoptic_png", f"{path.name}: {fault[1]}")], []
    try:
        with Image.open(io.BytesIO(data)) as image:
            if (image.height, image.width) != size:
                detail = f"{path.name}: expected {size[1]} x {size[0]} pixels, found {image.width} x {image.height}"
                return [("panoptic_png", detail)], []
            colors = image.convert("RGB").getcolors(size[0] * size[1])
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError, Image.DecompressionBombError) as error:
        return [("panoptic_png", f"{path.name}: {str(error)[:120]}")], []
    areas = {r + 256 * g + 256**2 * b: count for count, (r, g, b) in cast(list[tuple[int, tuple[int, int, int]]], colors)}
    areas.pop(0, None)  # 0 marks pixels of no segment
    unknown = sorted(set(areas) - set(segments))
    file_faults: Faults = [("panoptic_unknown_segment", f"{path.name}: segment {unknown[0]}")] if unknown else []
    segment_faults = []
    for number, area in segments.items():
        if number not in areas:
            segment_faults.append(("panoptic_missing_segment", number, f"segment {number}"))
        elif area != areas[number]:
            segment_faults.append(("panoptic_area", number, f"segment {number}: area {area:g}, {areas[number]} pixels"))
    return file_faults, segment_faults


def _has_one_color(image: Image.Image) -> bool:
    extremes = (image if image.mode == "RGB" else image.convert("RGB")).getextrema()
    return all(low == high for low, high in cast(tuple[tuple[int, int], ...], extremes))


def _read(path: Path, folder: Path) -> tuple[bytes, tuple[str, str] | None]:
    try:
        resolved = os.path.realpath(path)
        if not resolved.startswith(f"{folder}{os.sep}") and not _BY_CONTENT.search(resolved):
            return b"", ("image_link", f"a link to {resolved}")
        if os.path.lexists(resolved) and not os.path.isfile(resolved):
            return b"", ("image_unreadable", "not a file")  # reading a device or a pipe may never end
        data = path.read_bytes()
    except FileNotFoundError:
        return b"", ("image_missing", "no such file")
    except (OSError, ValueError) as error:
        return b"", ("image_unreadable", str(error)[:120])
    return data, None if data else ("image_empty", "0 bytes")
