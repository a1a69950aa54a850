"""COCO's run lengths of a mask: columns from left to right, runs of pixels outside and inside by turns, outside first."""

from __future__ import annotations

from typing import Any


def run_lengths(segmentation: Any, size: tuple[int, int]) -> list[int]:
    """The runs of an RLE, as numbers or as text, of an image of `size` (h, w).

    Raises ValueError where it isn't one, or its runs don't cover just this image: a decoder in C takes that on trust, and leaves
    what runs that end early don't cover as the memory was.
    """
    if not isinstance(segmentation, dict) or not segmentation.keys() >= {"size", "counts"}:
        raise ValueError(f"expected polygons or run lengths, found {segmentation!r:.60}")
    if segmentation["size"] != list(size):
        raise ValueError(f"expected a mask of {size[0]} x {size[1]} pixels, found one of {segmentation['size']!r:.60}")
    counts = segmentation["counts"]
    lengths = _uncompressed(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError("expected run lengths of 0 or more, found others")
    if sum(lengths) != size[0] * size[1]:
        raise ValueError(f"expected run lengths that add up to {size[0]} x {size[1]} pixels, found others")
    return lengths


def _uncompressed(text: str) -> list[int]:
    # Five bits of a number a character, the sixth says that more of it follow, the fifth of its last one is the sign; from the
    # fourth number on it is the difference from the last but one.
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
