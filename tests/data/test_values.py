"""Images of more than 8 bits per value: the values read from each type of file, and their scaling to 8 bits."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detr_core.data.images import read_image
from detr_core.data.values import ValueSpread, deep_values, ranges_of, to_8_bits, value_spread_of

VALUES = np.random.default_rng(0).integers(0, 65536, (6, 7, 4)).astype(np.uint16)


def png(values: Any, color_type: int) -> bytes:
    """Writes a PNG of 16 bits per value, which Pillow can't write in colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: Any, order: str, compressed: bool) -> bytes:
    """Writes a colour TIFF of 16 bits per value in this byte order."""
    height, width, bands = values.shape
    content = values.astype(f"{order}u2").tobytes()
    content = zlib.compress(content) if compressed else content
    tags = {256: width, 257: height, 258: 0, 259: 8 if compressed else 1, 262: 2, 273: 0, 277: bands, 278: height}
    tags |= {279: len(content), **({338: 2} if bands == 4 else {})}
    bits = 8 + 2 + 12 * len(tags) + 4
    tags |= {258: bits, 273: bits + 2 * bands}
    entries = b"".join(
        struct.pack(f"{order}HHII", tag, 3 if tag == 258 else 4, bands if tag == 258 else 1, value)
        for tag, value in sorted(tags.items())
    )
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return start + entries + struct.pack(f"{order}I", 0) + struct.pack(f"{order}H", 16) * bands + content


FILES = {
    "grey.png": (png(VALUES[..., 0], 0), VALUES[..., 0]),
    "rgb.png": (png(VALUES[..., :3], 2), VALUES[..., :3]),
    "grey-alpha.png": (png(VALUES[..., :2], 4), VALUES[..., 0]),
    "rgba.png": (png(VALUES, 6), VALUES[..., :3]),
    **{
        f"{bands}{order}{compressed}.tif": (tiff(VALUES[..., :bands], order, compressed), VALUES[..., :3])
        for bands in (3, 4)
        for order in "<>"
        for compressed in (False, True)
    },
}


@pytest.mark.parametrize("name", FILES)
def test_all_sixteen_bits_are_read(tmp_path: Path, name: str) -> None:
    content, values = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with Image.open(path) as image:
        deep = deep_values(image, lambda: Image.open(path))
    assert deep is not None
    assert deep[0] == "16-bit"
    np.testing.assert_array_equal(deep[1], values)
    expected = values >> 8 if values.ndim == 3 else np.repeat((values >> 8)[..., None], 3, axis=2)
    pixels = read_image(path, (6, 7), {"16-bit": (0, 65535)}).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i4", "<f4"])
def test_twelve_bits_are_seen_as_eight_would_be(tmp_path: Path, kind: str) -> None:
    grey = np.arange(42).reshape(6, 7) * 6
    Image.fromarray((grey * 16).astype(kind)).save(tmp_path / "a.tif")
    ranges = dict.fromkeys(("16-bit", "32-bit", "float"), (0.0, 4095.0))
    pixels = read_image(tmp_path / "a.tif", (6, 7), ranges).numpy()
    assert (pixels == grey).all()


@pytest.mark.parametrize("kind", ["<u2", ">u2", "<i4", "<f4"])
def test_small_values_are_not_black_where_no_range_is_known(tmp_path: Path, kind: str) -> None:
    Image.fromarray(np.arange(16).reshape(4, 4).astype(kind)).save(tmp_path / "a.tif")
    pixels = read_image(tmp_path / "a.tif", (4, 4)).numpy()
    assert pixels.min() == 0
    assert pixels.max() >= 240


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_eight_bits_stay_as_they_are(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray((VALUES[..., :3] >> 8).astype(np.uint8)).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    pixels = read_image(path, (6, 7), {"16-bit": (0, 5), "float": (0, 5)}).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(path).convert("RGB")))


def test_exif_turns_deep_images_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(VALUES[..., 0]).save(tmp_path / "a.png", exif=exif)
    pixels = read_image(tmp_path / "a.png", (7, 6), {"16-bit": (0, 65535)}).numpy()
    assert (pixels[0] == np.rot90(VALUES[..., 0] >> 8, -1)).all()


def test_neither_a_hot_pixel_nor_nan_sets_the_range() -> None:
    values = np.linspace(0, 4000, 20_000).reshape(100, 200)
    values[3, 4], values[5, 6], values[7, 8] = 65_535, np.nan, np.inf
    limits = value_spread_of("float", values)
    assert 0 <= limits.low < 10
    assert 3990 < limits.high <= 4000
    assert ranges_of([limits, ValueSpread("float", 70_000, 70_000), ValueSpread("16-bit", 2, 9)]) == {
        "float": (limits.low, limits.high),
        "16-bit": (2, 9),
    }
    assert to_8_bits(np.array([np.nan, -np.inf, np.inf, 0.5]), (0, 1)).tolist() == [0, 0, 255, 128]
    assert value_spread_of("float", np.full((2, 2), np.nan)) == ValueSpread("float", 0, 0)
