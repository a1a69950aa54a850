"""Defines the style of all plots: text that is legible on light and dark pages, a few colours, and reproducible files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

# The colour of text and axes. It is a mid-tone with a contrast above 4 on white and on near-black, because plots are transparent.
# The report replaces it by the page's own text colour.
INK = "#777b83"
COLORS = ("#2f80c9", "#dd7a2b", "#3d9e68", "#8c66cc", "#cf5261", "#2a9ba3")

_SMALL = 200  # pixels: an image with a shorter side is smoothed when it is enlarged

_LOOK: dict[Any, Any] = {
    "svg.hashsalt": "detr",  # the ids in an SVG depend on its content and are not random
    "svg.fonttype": "none",  # text stays text: it is selectable, small, and in the page's font
    "font.size": 10,
    "text.parse_math": False,  # a class or a variant may be called $x$
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.4,
}


@contextmanager
def plot(folder: Path, name: str) -> Iterator[Axes]:
    """Yields the axes of one plot, which is written to `folder` as `name`.svg and `name`.png when the block ends."""
    with drawing(folder, name, (5.4, 3.3)) as figure:
        yield figure.add_subplot()


@contextmanager
def drawing(folder: Path, name: str, size: tuple[float, float]) -> Iterator[Figure]:
    """Yields an empty figure of `size` (width, height; inches) for several panels, which is written in the same way as a plot."""
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        svg, png = files(folder, name)
        figure.savefig(svg, transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        figure.savefig(png, transparent=True, dpi=200, metadata={"Software": None})


def picture(axes: Axes, pixels: NDArray[np.uint8], title: str = "") -> None:
    """Draws an image, [H, W, 3] RGB, without axes so that it fills its panel."""
    axes.imshow(pixels, interpolation="bicubic" if max(pixels.shape) < _SMALL else None)
    axes.set_axis_off()
    axes.set_title(title, loc="center", pad=5)


def legend(axes: Axes, lines: Sequence[Line2D], **options: Any) -> None:
    """Draws a legend of the lines, including labels that begin with an underscore, which Matplotlib leaves out by default."""
    axes.legend(handles=list(lines), labels=[str(line.get_label()) for line in lines], **options)


def cased(width: float) -> list[AbstractPathEffect]:
    """Returns a dark casing for lines and text over images, which keeps them visible on a background of their colour."""
    return [withStroke(linewidth=width, foreground="#14161c")]


def files(folder: Path, name: str) -> list[Path]:
    """Returns the files that `plot` writes: an SVG, and a PNG for programs that can't show SVG."""
    return [folder / f"{name}.svg", folder / f"{name}.png"]
