"""Images of every mode are read as RGB, upright and in the annotated size; an error names an unusable file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detr_core.data.images import read_image, read_segment_ids
from detr_core.data.splits import DatasetError

ORIENTATION = 0x0112


@pytest.fixture
def picture() -> Any:
    """Returns uint8 [24, 40, 3], so smooth that JPEG hardly changes it, and different from itself in every other orientation."""
    y, x = np.mgrid[:24, :40]
    return np.stack([x * 6, y * 10, 255 - x * 3 - y * 3], axis=-1).astype(np.uint8)


def read(path: Path, size: tuple[int, int]) -> Any:
    image = read_image(path, size)
    assert image.dtype == torch.uint8
    assert image.shape == (3, *size)
    return image.permute(1, 2, 0).numpy()


def test_colors_come_as_they_are(tmp_path: Path, noise: Callable[..., Any]) -> None:
    pixels = noise(5, 7)
    for name in ("rgb.png", "rgb.bmp", "rgb.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
        np.testing.assert_array_equal(read(tmp_path / name, (5, 7)), pixels)


def test_greyscale_gets_three_equal_channels(tmp_path: Path, picture: Any) -> None:
    for name in ("grey.png", "grey.jpg"):
        Image.fromarray(picture[..., 0]).save(tmp_path / name, quality=95)
        channels = read(tmp_path / name, (24, 40))
        np.testing.assert_allclose(channels, np.repeat(picture[..., :1], 3, axis=2), atol=4)
        assert (channels[..., :1] == channels).all()


def test_cmyk_gets_its_colors_back(tmp_path: Path, picture: Any) -> None:
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    np.testing.assert_allclose(read(tmp_path / "cmyk.jpg", (24, 40)).astype(int), picture, atol=6)


def test_sixteen_bits_keep_their_brightness(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 32768], [65535, 40000, 1000, 65280]], dtype=np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(values).save(tmp_path / name)
        expected = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
        np.testing.assert_array_equal(read(tmp_path / name, (2, 4)), expected)


def test_images_with_a_palette_or_transparency_keep_their_colors(tmp_path: Path, picture: Any) -> None:
    Image.fromarray(picture).convert("RGBA").save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read(tmp_path / "alpha.png", (24, 40)), picture)
    few = Image.fromarray(picture).quantize(8)
    few.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read(tmp_path / "palette.png", (24, 40)), np.asarray(few.convert("RGB")))


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda pixels: pixels),
        (2, lambda pixels: pixels[:, ::-1]),
        (3, lambda pixels: pixels[::-1, ::-1]),
        (6, lambda pixels: np.rot90(pixels, -1)),
        (8, lambda pixels: np.rot90(pixels, 1)),
    ],
)
def test_exif_rotation_is_applied(tmp_path: Path, picture: Any, orientation: int, turned: Callable[[Any], Any]) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    expected = turned(picture)
    np.testing.assert_array_equal(read(tmp_path / "turned.png", expected.shape[:2]), expected)


def test_annotations_made_on_the_unturned_image_decide(tmp_path: Path, picture: Any) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(picture).save(tmp_path / "raw.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "raw.png", (24, 40)), picture)


def test_unusable_files_are_named(tmp_path: Path, picture: Any) -> None:
    Image.fromarray(picture).save(tmp_path / "whole.jpg")
    Image.fromarray(picture).save(tmp_path / "whole.png")
    for name in ("whole.jpg", "whole.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut_{name}").write_bytes(content[: len(content) * 2 // 3])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").touch()
    for name in ("cut_whole.jpg", "cut_whole.png", "text.jpg", "empty.jpg"):
        with pytest.raises(DatasetError, match=rf"{name}: expected an image, found a file that can't be read as one"):
            read_image(tmp_path / name, (24, 40))
    with pytest.raises(DatasetError, match=r"none\.jpg: expected an image, found no such file"):
        read_image(tmp_path / "none.jpg", (24, 40))
    with pytest.raises(DatasetError, match=r"whole\.jpg: expected 30 x 20 pixels as annotated, found 40 x 24"):
        read_image(tmp_path / "whole.jpg", (20, 30))


def test_segment_ids_are_decoded_from_colors(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[1, 2, 3], [255, 0, 0]]], dtype=np.uint8)).save(tmp_path / "ids.png")
    assert read_segment_ids(tmp_path / "ids.png", (1, 2)).tolist() == [[1 + 2 * 256 + 3 * 65536, 255]]
    with pytest.raises(DatasetError, match=r"ids\.png: expected 3 x 2 pixels like its image, found 2 x 1"):
        read_segment_ids(tmp_path / "ids.png", (2, 3))
