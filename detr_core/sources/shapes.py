"""Computes which pixels the rotated and stretched shapes of generated scenes cover."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Plane = npt.NDArray[np.float64]

# The five sides of a pentagram are lines at the same distance from its centre, each facing one of its tips.
_TIPS = np.deg2rad(np.arange(5) * 72 - 90)
_STAR_SIDE = math.cos(math.radians(72))


def _circle(u: Plane, v: Plane) -> Mask:
    return u * u + v * v <= 1


def _square(u: Plane, v: Plane) -> Mask:
    return np.maximum(np.abs(u), np.abs(v)) <= 1


def _triangle(u: Plane, v: Plane) -> Mask:
    return (v <= 1) & (2 * np.abs(u) - v <= 1)


def _star(u: Plane, v: Plane) -> Mask:
    # A point lies in the star exactly when it is beyond at most one of the five sides.
    beyond = sum(((u * math.cos(tip) + v * math.sin(tip) > _STAR_SIDE).astype(np.int8) for tip in _TIPS), np.int8(0))
    return np.asarray(beyond <= 1)


FIGURES: dict[str, Callable[[Plane, Plane], Mask]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
}


def figure_mask(figure: str, size: int, center: tuple[float, float], half_extent: tuple[float, float], rotation: float) -> Mask:
    """Returns the pixels of a `size` x `size` image whose centres lie inside a shape, as bool [size, size].

    figure: a key of FIGURES. center: (x, y), pixels. half_extent: half of the extent along each of the shape's own axes, pixels.
    rotation: radians, clockwise in image coordinates. Parts outside of the image are cut off.
    """
    mask = np.zeros((size, size), dtype=np.bool_)
    reach = math.hypot(*half_extent)
    left, right = (int(np.clip(round(center[0] + side), 0, size)) for side in (-reach, reach))
    top, bottom = (int(np.clip(round(center[1] + side), 0, size)) for side in (-reach, reach))
    x = (np.arange(left, right) + 0.5 - center[0])[None, :]
    y = (np.arange(top, bottom) + 0.5 - center[1])[:, None]
    cosine, sine = math.cos(rotation), math.sin(rotation)
    u = (x * cosine + y * sine) / half_extent[0]
    v = (y * cosine - x * sine) / half_extent[1]
    mask[top:bottom, left:right] = FIGURES[figure](u, v)
    return mask
