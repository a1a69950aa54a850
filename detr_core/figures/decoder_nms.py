"""Decoder depth x NMS (Figure 4 of the paper): what each decoder layer's output is worth, with NMS and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detr_core.figures.style import COLORS, files, plot

Grid = dict[float | None, dict[int, dict[str, float]]]


def read_cells(cells: Path) -> Grid:
    """The figures of a `cells.json` (a list of {decoder_depth, nms, figures}) as {nms: {depth: figures}}; nms None is 'off'.

    Without NMS comes first, then thresholds from loose (high) to strict.
    """
    content: list[dict[str, Any]] = json.loads(cells.read_text(encoding="utf-8"))
    thresholds = sorted({cell["nms"] for cell in content}, key=lambda nms: -2.0 if nms is None else -nms)
    grid: Grid = {nms: {} for nms in thresholds}
    for cell in sorted(content, key=lambda cell: int(cell["decoder_depth"])):
        grid[cell["nms"]][cell["decoder_depth"]] = cell["figures"]
    return grid


def decoder_nms_figure(cells: Path, folder: Path) -> list[Path]:
    """Draws a `cells.json` into `folder`, in percent against decoder depth, a line for each NMS.

    Writes decoder_nms_AP, decoder_nms_AP50 and decoder_nms_gain (AP with NMS less AP without; only where both were measured),
    each as SVG and PNG. Returns the files written.
    """
    grid = read_cells(cells)
    written: list[Path] = []
    for figure in ("AP", "AP50"):
        name = f"decoder_nms_{figure}"
        with plot(folder, name) as axes:
            for (nms, row), color in zip(grid.items(), COLORS, strict=False):
                axes.plot(list(row), [100 * each[figure] for each in row.values()], "o-", ms=4, color=color, label=label(nms))
            _finish(axes, f"{figure}, percent")
        written += files(folder, name)
    if None in grid and len(grid) > 1:
        with plot(folder, "decoder_nms_gain") as axes:
            axes.axhline(0, color=axes.spines["bottom"].get_edgecolor(), linewidth=0.8)
            for (nms, row), color in zip(grid.items(), COLORS, strict=False):
                if nms is not None:
                    depths = [depth for depth in row if depth in grid[None]]
                    gains = [gain(grid, nms, depth) for depth in depths]
                    axes.plot(depths, gains, "o-", ms=4, color=color, label=label(nms))
            _finish(axes, "What NMS adds to AP, points")
        written += files(folder, "decoder_nms_gain")
    return written


def label(nms: float | None) -> str:
    """'no NMS', or 'NMS 0.7'."""
    return "no NMS" if nms is None else f"NMS {nms:g}"


def gain(grid: Grid, nms: float, depth: int) -> float:
    """AP with NMS less AP without it after `depth` decoder layers, in points of percent."""
    return 100 * (grid[nms][depth]["AP"] - grid[None][depth]["AP"])


def finding(grid: Grid) -> str:
    """What the study shows, in one sentence computed from its figures; empty without NMS off or with one layer only."""
    plain = grid.get(None, {})
    if len(plain) < 2:
        return ""
    first, last = min(plain), max(plain)
    start, end = 100 * plain[first]["AP"], 100 * plain[last]["AP"]
    verb = "rises" if round(end - start, 1) > 0 else "falls" if round(end - start, 1) < 0 else "goes"
    text = f"Without NMS, AP {verb} from {start:.1f} after decoder layer {first} to {end:.1f} after layer {last}"
    text += f" ({signed(end - start)})"
    thresholds = [nms for nms, row in grid.items() if nms is not None and first in row and last in row]
    if not thresholds:
        return f"{text}."
    nms = max(thresholds)  # the loosest: it removes duplicates and hardly anything else
    early, late = gain(grid, nms, first), gain(grid, nms, last)
    text += f"; {label(nms)} changes it by {signed(early)} after layer {first} and by {signed(late)} after layer {last}"
    if round(early, 1) > round(late, 1):
        return f"{text}: what NMS is worth shrinks with depth."
    return f"{text}: what NMS is worth does not shrink with depth."


def signed(points: float, decimals: int = 1) -> str:
    """Such as '+3.1' or '−0.8'; never a negative zero."""
    return f"{round(points, decimals) + 0.0:+.{decimals}f}".replace("-", "−")


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("decoder layers")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
