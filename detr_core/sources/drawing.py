"""Draws one generated scene: chooses places for its objects and paints them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detr_core.sources.config import ScenesConfig
from detr_core.sources.shapes import Mask, figure_mask

Plane = npt.NDArray[np.float32]

THINGS = {"circle": (220, 45, 40), "square": (235, 210, 50), "triangle": (205, 50, 205), "star": (242, 242, 242)}
STUFF = {"sky": (140, 190, 235), "grass": (75, 145, 60), "water": (35, 85, 150)}

_ATTEMPTS = 20  # places that are tried for an object before it is left out of the scene
_GRAIN = 5.0  # standard deviation of the noise on every pixel
_STUFF_COLOR_NOISE = 10.0


@dataclass(frozen=True)
class Scene:
    """A generated image with its segments.

    image [size, size, 3]: uint8 RGB. segments [size, size]: uint8, an index into `names` for every pixel.
    names: the class of each segment, a key of STUFF or THINGS; stuff comes first. A segment without pixels is fully occluded.
    """

    image: npt.NDArray[np.uint8]
    segments: npt.NDArray[np.uint8]
    names: list[str]


@dataclass(frozen=True)
class _Object:
    name: str
    center: tuple[float, float]
    extent: float
    mask: Mask  # of the whole object, occluded or not
    alone: bool  # not placed beside another object


class _Canvas:
    """A scene that is painted layer by layer: for each pixel, its topmost layer and its offset from the layer's colour."""

    def __init__(self, size: int) -> None:
        self.segments = np.zeros((size, size), dtype=np.uint8)
        self.shade = np.zeros((size, size), dtype=np.float32)
        self.names: list[str] = []
        self.colors: list[npt.NDArray[np.float64]] = []
        self.whole: list[int] = []  # number of pixels of each layer before other layers covered it

    def add(self, name: str, mask: Mask, color: npt.NDArray[np.float64], shade: Plane) -> None:
        self.segments[mask] = len(self.names)
        self.shade[mask] = shade[mask]
        self.names.append(name)
        self.colors.append(color)
        self.whole.append(int(np.count_nonzero(mask)))

    def visible_under(self, mask: Mask) -> npt.NDArray[np.float64]:
        """Returns the fraction of each layer that stays visible if `mask` is painted over it."""
        visible = np.bincount(self.segments[~mask], minlength=len(self.names))
        return np.asarray(visible / np.maximum(self.whole, 1))

    def image(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        image = np.stack(self.colors).astype(np.float32)[self.segments]
        image += self.shade[..., None]
        image += _GRAIN * rng.standard_normal(image.shape, dtype=np.float32)
        return np.clip(image, 0, 255, out=image).astype(np.uint8)


def draw_scene(config: ScenesConfig, rng: np.random.Generator) -> Scene:
    """Returns a scene: sky above a wavy horizon, grass, water or both below it, and things that may partly hide each other.

    At least the fraction `config.visible` of every thing's pixels stays visible. A thing without such a place is left out.
    """
    canvas = _Canvas(config.size)
    _paint_background(canvas, config.size, rng)
    pieces = len(canvas.names)
    objects: list[_Object] = []
    for _ in range(rng.integers(config.objects[0], config.objects[1], endpoint=True)):
        for _ in range(_ATTEMPTS):
            candidate = _propose(config, objects, rng)
            if candidate.mask.any() and np.all(canvas.visible_under(candidate.mask)[pieces:] >= config.visible):
                objects.append(candidate)
                _paint(canvas, candidate, config, rng)
                break
    return Scene(canvas.image(rng), canvas.segments, canvas.names)


def _propose(config: ScenesConfig, objects: list[_Object], rng: np.random.Generator) -> _Object:
    alone = [placed for placed in objects if placed.alone]
    beside = bool(alone) and rng.random() < config.beside
    if beside:
        partner = alone[rng.integers(len(alone))]
        name = partner.name
        extent = partner.extent * rng.uniform(*config.beside_size)
        distance = (partner.extent + extent) / 2 * rng.uniform(0.8, 1.1)
        direction = rng.uniform(0, 2 * math.pi)
        center = np.array(partner.center) + distance * np.array([math.cos(direction), math.sin(direction)])
        center = np.clip(center, extent / 2, config.size - extent / 2)
    else:
        name = list(THINGS)[rng.integers(len(THINGS))]
        extent = math.exp(rng.uniform(*np.log(config.object_size)))
        center = rng.uniform(extent / 2, config.size - extent / 2, size=2)
    stretch = math.exp(rng.uniform(-config.log_aspect, config.log_aspect) / 2)
    half_extent = (extent / 2 * stretch, extent / 2 / stretch)
    position = (float(center[0]), float(center[1]))
    mask = figure_mask(name, config.size, position, half_extent, rng.uniform(-config.rotation, config.rotation))
    return _Object(name, position, extent, mask, not beside)


def _paint(canvas: _Canvas, thing: _Object, config: ScenesConfig, rng: np.random.Generator) -> None:
    color = THINGS[thing.name] + config.color_noise * rng.standard_normal(3)
    if rng.random() < config.random_color:
        color = rng.uniform(0, 255, size=3)
    texture = rng.uniform(*config.texture) * _waves(config.size, rng.uniform(5, 14), rng.uniform(0, math.pi), rng)
    canvas.add(thing.name, thing.mask, color, texture)


def _paint_background(canvas: _Canvas, size: int, rng: np.random.Generator) -> None:
    rows = np.arange(size)[:, None]
    sky = rows < _wavy_line(size, rng.uniform(0.25, 0.6), rng)
    shore = rows < _wavy_line(size, rng.uniform(0.65, 0.85), rng)
    far, near = rng.permutation(["grass", "water"]).tolist()
    pieces = {"sky": sky, far: ~sky & shore, near: ~sky & ~shore}
    if rng.random() < 0.5:  # no shore: a single kind of ground reaches the horizon
        pieces = {"sky": sky, near: ~sky}
    # (amplitude, wavelength in pixels, direction in radians) of the texture: blades of grass, ripples of water, a nearly even sky
    textures = {"sky": (4.0, 40.0, 1.4), "grass": (9.0, 4.0, 0.2), "water": (9.0, 8.0, math.pi / 2)}
    for name, mask in pieces.items():
        amplitude, wavelength, direction = textures[name]
        color = STUFF[name] + _STUFF_COLOR_NOISE * rng.standard_normal(3)
        canvas.add(name, mask, color, amplitude * _waves(size, wavelength, direction + rng.normal(0, 0.1), rng))


def _waves(size: int, wavelength: float, direction: float, rng: np.random.Generator) -> Plane:
    # Returns stripes of one wavelength (pixels) across `direction` (radians), with values between -1 and 1.
    steps = np.arange(size, dtype=np.float32) * np.float32(2 * math.pi / wavelength)
    along = steps * np.float32(math.cos(direction)) + np.float32(rng.uniform(0, 2 * math.pi))
    return np.asarray(np.sin(along[None, :] + (steps * np.float32(math.sin(direction)))[:, None]), dtype=np.float32)


def _wavy_line(size: int, height: float, rng: np.random.Generator) -> Plane:
    # Returns the row of a horizon at every column: two waves around `height`, which is a fraction of the image's height.
    x = np.arange(size, dtype=np.float32) / size * np.float32(2 * math.pi)
    slow, fast = rng.uniform(0, 0.06), rng.uniform(0, 0.025)
    phase = rng.uniform(0, 2 * math.pi, size=2)
    line = height + slow * np.sin(x + phase[0]) + fast * np.sin(rng.uniform(2, 5) * x + phase[1])
    return np.asarray(line * size, dtype=np.float32)
