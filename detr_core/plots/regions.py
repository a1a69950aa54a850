"""Shows the share of attention in regions of an image, as bars and as a table, for the studies of attention."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detr_core.plots.style import COLORS, INK, files, plot
from detr_core.plots.tables import Row, Table


def read_maps(maps: Path) -> list[dict[str, Any]]:
    """Returns the content of a `maps.json`."""
    content: list[dict[str, Any]] = json.loads(maps.read_text(encoding="utf-8"))
    return content


def region_bars(metrics: Mapping[str, float], names: Mapping[str, str], folder: Path, name: str, title: str) -> list[Path]:
    """Draws the share of attention in each region and the region's share of the image, in percent, as SVG and PNG.

    metrics: scalars with the keys '<region>/mass', '<region>/area' and '<region>/times'. names: region -> its label; regions that
    were not measured are left out. Returns the files written, or an empty list if nothing was measured.
    """
    measured = [(label, region) for region, label in names.items() if f"{region}/mass" in metrics]
    if not measured:
        return []
    with plot(folder, name) as axes:
        for row, (_, region) in enumerate(measured):
            mass, area = (100 * metrics[f"{region}/{part}"] for part in ("mass", "area"))
            axes.barh(row - 0.19, mass, 0.36, color=COLORS[0], label="of the attention" if row == 0 else None)
            axes.barh(row + 0.19, area, 0.36, color=INK, alpha=0.55, label="of the image" if row == 0 else None)
            axes.annotate(
                f"{metrics[f'{region}/times']:.1f} × uniform", (mass, row - 0.19), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=9,
            )  # fmt: skip
        axes.set_yticks(range(len(measured)), [label for label, _ in measured])
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.35 * max(100 * metrics[f"{r}/{part}"] for _, r in measured for part in ("mass", "area")))
        axes.set_title(f"{title}, percent")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    return files(folder, name)


def region_table(metrics: Mapping[str, float], names: Mapping[str, str]) -> Table:
    """Returns the table of what `region_bars` draws, with the same arguments."""
    rows: list[Row] = [
        (label, (100 * metrics[f"{name}/mass"], 100 * metrics[f"{name}/area"], metrics[f"{name}/times"]))
        for name, label in names.items()
        if f"{name}/mass" in metrics
    ]
    return Table("region", ("percent of the attention", "percent of the image", "times a uniform distribution"), rows)
