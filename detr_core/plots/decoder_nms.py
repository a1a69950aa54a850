"""Plots AP after each decoder layer with and without NMS (Figure 4 of the paper)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detr_core.plots.numbers import signed
from detr_core.plots.style import COLORS, files, plot

Grid = dict[float | None, dict[int, dict[str, float]]]


def read_cells(cells: Path) -> Grid:
    """Returns the metrics of a `cells.json` (a list of {decoder_depth, nms, metrics}) as {nms: {depth: metrics}}.

    nms is None without NMS. This key comes first, then the thresholds in descending order.
    """
    content: list[dict[str, Any]] = json.loads(cells.read_text(encoding="utf-8"))
    thresholds = sorted({cell["nms"] for cell in content}, key=lambda nms: -2.0 if nms is None else -nms)
    grid: Grid = {nms: {} for nms in thresholds}
    for cell in sorted(content, key=lambda cell: int(cell["decoder_depth"])):
        grid[cell["nms"]][cell["decoder_depth"]] = cell["metrics"]
    return grid


def decoder_nms_plots(cells: Path, folder: Path) -> list[Path]:
    """Draws a `cells.json` into `folder`: metrics in percent against decoder depth, with one line per NMS threshold.

    Writes decoder_nms_AP, decoder_nms_AP50 and, if both were measured, decoder_nms_gain (AP with NMS minus AP without NMS), each
    as SVG and PNG. Returns the files written.
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
            _finish(axes, "Gain of AP by NMS, percentage points")
        written += files(folder, "decoder_nms_gain")
    return written


def label(nms: float | None) -> str:
    """Returns 'no NMS', or the threshold as in 'NMS 0.7'."""
    return "no NMS" if nms is None else f"NMS {nms:g}"


def gain(grid: Grid, nms: float, depth: int) -> float:
    """Returns AP with NMS minus AP without NMS after `depth` decoder layers, in percentage points."""
    return 100 * (grid[nms][depth]["AP"] - grid[None][depth]["AP"])


def finding(grid: Grid) -> str:
    """Returns the result of the study in one sentence computed from its metrics.

    Returns '' if AP without NMS was not measured, or if only one layer was.
    """
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
    nms = max(thresholds)  # the highest threshold removes hardly more than duplicates
    early, late = gain(grid, nms, first), gain(grid, nms, last)
    text += f"; {label(nms)} changes it by {signed(early)} after layer {first} and by {signed(late)} after layer {last}"
    if round(early, 1) > round(late, 1):
        return f"{text}: the gain by NMS shrinks with depth."
    return f"{text}: the gain by NMS does not shrink with depth."


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("decoder layers")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
