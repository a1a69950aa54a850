"""Makes plots and tables of AP after each decoder layer with and without NMS (Figure 4 of the paper)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detr_core.numbers import signed
from detr_core.plots.sections import Section
from detr_core.plots.study_section import StudyText, study_section
from detr_core.plots.style import COLORS, files, plot
from detr_core.plots.tables import Row, Table, percent

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


def plots(folder: Path, out: Path) -> list[Path]:
    """Draws the `cells.json` of `folder` into `out`: metrics in percent against decoder depth, with one line per NMS threshold.

    Writes decoder_nms_AP, decoder_nms_AP50 and, if both were measured, decoder_nms_gain (AP with NMS minus AP without NMS), each
    as SVG and PNG. Returns the files written.
    """
    grid = read_cells(folder / "cells.json")
    written: list[Path] = []
    for metric in ("AP", "AP50"):
        name = f"decoder_nms_{metric}"
        with plot(out, name) as axes:
            for (nms, row), color in zip(grid.items(), COLORS, strict=False):
                axes.plot(
                    list(row), [100 * metrics[metric] for metrics in row.values()], "o-", ms=4, color=color, label=label(nms)
                )
            _finish(axes, f"{metric}, percent")
        written += files(out, name)
    if None in grid and len(grid) > 1:
        with plot(out, "decoder_nms_gain") as axes:
            axes.axhline(0, color=axes.spines["bottom"].get_edgecolor(), linewidth=0.8)
            for (nms, row), color in zip(grid.items(), COLORS, strict=False):
                if nms is not None:
                    depths = [depth for depth in row if depth in grid[None]]
                    gains = [gain(grid, nms, depth) for depth in depths]
                    axes.plot(depths, gains, "o-", ms=4, color=color, label=label(nms))
            _finish(axes, "Gain of AP by NMS, percentage points")
        written += files(out, "decoder_nms_gain")
    return written


def section(folder: Path, out: Path, published: Mapping[str, Any]) -> Section:
    """Returns the report's section about the study."""
    grid = read_cells(folder / "cells.json")
    text = StudyText(
        "Decoder depth and NMS",
        conclusion(grid),
        "The output of every decoder layer was scored like that of the last layer, in one pass of one model over the val images.",
    )
    tables = {
        "AP and AP50 by decoder layer": layers_table(grid),
        "Comparison with published metrics": gains_table(grid, published),
    }
    return study_section("decoder-nms", text, plots(folder, out), tables, published)


def label(nms: float | None) -> str:
    """Returns 'no NMS', or the threshold as in 'NMS 0.7'."""
    return "no NMS" if nms is None else f"NMS {nms:g}"


def gain(grid: Grid, nms: float, depth: int) -> float:
    """Returns AP with NMS minus AP without NMS after `depth` decoder layers, in percentage points."""
    return 100 * (grid[nms][depth]["AP"] - grid[None][depth]["AP"])


def conclusion(grid: Grid) -> str:
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
    first_gain, last_gain = gain(grid, nms, first), gain(grid, nms, last)
    text += f"; {label(nms)} changes it by {signed(first_gain)} after layer {first} and by {signed(last_gain)} after layer {last}"
    if round(first_gain, 1) > round(last_gain, 1):
        return f"{text}: the gain by NMS shrinks with depth."
    return f"{text}: the gain by NMS does not shrink with depth."


def layers_table(grid: Grid) -> Table:
    """Returns the table of AP and AP50 after each decoder layer, for each NMS threshold."""
    columns = tuple(f"{name}, {label(nms)}" for name in ("AP", "AP50") for nms in grid)
    depths = sorted({depth for row in grid.values() for depth in row})
    rows = [
        (str(depth), tuple(percent(row.get(depth, {}), name) for name in ("AP", "AP50") for row in grid.values()))
        for depth in depths
    ]
    return Table("decoder layers", columns, rows)


def gains_table(grid: Grid, published: Mapping[str, Any]) -> Table:
    """Returns the table of the gains by depth and by NMS at the last layer, measured and published.

    published: the study's section of published.json.
    """
    plain = grid.get(None, {})
    if not plain:
        return Table("points", ("this run", "published"), [])
    first, last = plain[min(plain)], plain[max(plain)]
    rows: list[Row] = [
        (f"{name}, first layer to last", (100 * (last[name] - first[name]), published[f"{name}_first_to_last"]))
        for name in ("AP", "AP50")
    ]
    for nms in grid:
        if nms is not None and max(plain) in grid[nms]:
            rows.append(
                (f"AP, {label(nms)} at the last layer", (gain(grid, nms, max(plain)), published["NMS_at_last"].get(f"{nms:g}")))
            )
    return Table("points", ("this run", "published"), rows, source=published["source"], signed=True)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("decoder layers")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
