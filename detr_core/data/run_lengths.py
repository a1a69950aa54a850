"""Decodes COCO's run-length encoding (RLE) of a mask: column by column, with alternating runs outside and inside of the mask."""

from __future__ import annotations

from typing import Any


def run_lengths(segmentation: Any, size: tuple[int, int]) -> list[int]:
    """Returns the run lengths of an RLE, which may hold them as numbers or as compressed text. The first run is outside.

    size: (h, w) of the image. Raises ValueError for a malformed RLE, or one whose runs do not cover exactly this image. The C
    decoder does not check this, and leaves pixels that no run covers uninitialised.
    """
    if not isinstance(segmentation, dict) or not segmentation.keys() >= {"size", "counts"}:
        raise ValueError(f"expected polygons or run lengths, found {segmentation!r:.60}")
    if segmentation["size"] != list(size):
        raise ValueError(f"expected the size {list(size)} (height, width), found {segmentation['size']!r:.60}")
    counts = segmentation["counts"]
    lengths = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError("expected run lengths of 0 or more, found other values")
    if sum(lengths) != size[0] * size[1]:
        raise ValueError(f"expected run lengths that add up to {size[1]} x {size[0]} pixels, found another sum")
    return lengths


def _uncompressed(text: str) -> list[int]:
    # Each character holds five bits of a number. Its sixth bit says that more characters of the number follow, and the fifth bit
    # of the last character is the sign. From the fourth number on, a number is the difference from the number two before it.
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("expected run lengths as COCO compresses them, found other text")
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            number -= (bits >> 4 & 1) << shift
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("expected whole run lengths, found text that ends in the middle of one")
    return lengths
