"""How every plot looks: one ink, legible on white and on near-black, a few colours, and files that are the same each time."""

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

# A mid-tone, because the background is the page's: the contrast is above 4 on white and on near-black. The report swaps it for
# the page's own text colour.
INK = "#777b83"
COLORS = ("#2f80c9", "#dd7a2b", "#3d9e68", "#8c66cc", "#cf5261", "#2a9ba3")

_SMALL = 200  # pixels: an image below it is smoothed when it is enlarged

_LOOK: dict[Any, Any] = {
    "svg.hashsalt": "detr",  # ids in the SVG from its content, not at random
    "svg.fonttype": "none",  # text stays text: selectable, small, in the page's font
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
    """One plot to draw on, written to `folder` as `name`.svg and `name`.png when the block ends; `files` names them."""
    with drawing(folder, name, (5.4, 3.3)) as figure:
        yield figure.add_subplot()


@contextmanager
def drawing(folder: Path, name: str, size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure of `size` (width, height; inches) for several panels; written as `plot` writes."""
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        svg, png = files(folder, name)
        figure.savefig(svg, transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        figure.savefig(png, transparent=True, dpi=200, metadata={"Software": None})


def picture(axes: Axes, pixels: NDArray[np.uint8], title: str = "") -> None:
    """An image, [H, W, 3] RGB, that fills its panel, with no axes around it."""
    axes.imshow(pixels, interpolation="bicubic" if max(pixels.shape) < _SMALL else None)
    axes.set_axis_off()
    axes.set_title(title, loc="center", pad=5)


def legend(axes: Axes, lines: Sequence[Line2D], **options: Any) -> None:
    """A legend of these lines, whatever they are called: Matplotlib's own leaves out labels that begin with an underscore."""
    axes.legend(handles=list(lines), labels=[str(line.get_label()) for line in lines], **options)


def cased(width: float) -> list[AbstractPathEffect]:
    """For lines and text over images: a dark casing, so that they are seen on a ground of their own colour."""
    return [withStroke(linewidth=width, foreground="#14161c")]


def files(folder: Path, name: str) -> list[Path]:
    """The files that `plot` writes: vectors for reading, pixels for where vectors aren't shown."""
    return [folder / f"{name}.svg", folder / f"{name}.png"]
