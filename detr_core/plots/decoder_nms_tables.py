"""The tables of decoder depth x NMS (Figure 4 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detr_core.plots.decoder_nms import Grid, gain, label
from detr_core.plots.tables import Row, Table, percent


def decoder_nms(grid: Grid) -> Table:
    """Returns the table of AP and AP50 after each decoder layer, for each NMS threshold."""
    columns = tuple(f"{name}, {label(nms)}" for name in ("AP", "AP50") for nms in grid)
    depths = sorted({depth for row in grid.values() for depth in row})
    rows = [
        (str(depth), tuple(percent(row.get(depth, {}), name) for name in ("AP", "AP50") for row in grid.values()))
        for depth in depths
    ]
    return Table("decoder layers", columns, rows)


def decoder_nms_beside_published(grid: Grid, published: Mapping[str, Any]) -> Table:
    """Returns the table of the gains by depth and by NMS at the last layer, measured and published.

    published: a section of published.json.
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
