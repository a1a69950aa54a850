"""Panoptic quality of several runs (Table 5 of the paper): a table beside the published rows, and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detr_core.figures.style import COLORS, files, plot
from detr_core.figures.tables import Row, Table

Rows = list[dict[str, Any]]
_PARTS = {"all": "PQ", "things": "PQ_things", "stuff": "PQ_stuff"}


def read_rows(table: Path) -> Rows:
    """The content of a `table.json`: {name, figures} of each run."""
    content: Rows = json.loads(table.read_text(encoding="utf-8"))
    return content


def panoptic_table(rows: Rows, published: Mapping[str, Any]) -> Table:
    """PQ, SQ and RQ of all classes, things and stuff, and mask AP, in percent; `published` is a section of published.json."""
    columns = tuple(rows[0]["figures"])
    measured: list[Row] = [(row["name"], tuple(_percent(row, column) for column in columns)) for row in rows]
    theirs: list[Row] = [(row["model"], tuple(row.get(column) for column in columns)) for row in published["rows"]]
    heads = tuple(column.replace("_", " ").replace("mask/", "mask ") for column in columns)
    return Table("run", heads, measured, theirs, published["source"])


def panoptic_table_figure(table: Path, folder: Path) -> list[Path]:
    """Draws PQ of all classes, of things and of stuff of each run of a `table.json` into `folder`, as SVG and PNG."""
    rows = read_rows(table)
    height = 0.8 / len(rows)
    with plot(folder, "panoptic_table") as axes:
        for place, row in enumerate(rows):
            color = COLORS[place % len(COLORS)]
            for group, column in enumerate(_PARTS.values()):
                value = _percent(row, column)
                if value is None:
                    continue
                where = group + (place - (len(rows) - 1) / 2) * height
                axes.barh(where, value, 0.92 * height, color=color, label=row["name"] if group == 0 else None)
                axes.annotate(f"{value:.1f}", (value, where), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(range(len(_PARTS)), list(_PARTS))
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        axes.set_title("Panoptic quality, percent")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=min(3, len(rows)))
    return files(folder, "panoptic_table")


def finding(rows: Rows) -> str:
    """What the table shows, in one sentence computed from it; empty with a single run."""
    if len(rows) < 2:
        return ""
    best = max(rows, key=lambda row: float(row["figures"]["PQ"]))
    others = "; ".join(f"{row['name']} {_percent(row, 'PQ'):.1f}" for row in rows if row is not best)
    return f"PQ is highest for {best['name']}, {_percent(best, 'PQ'):.1f}; {others}."


def _percent(row: Mapping[str, Any], column: str) -> float | None:
    value = row["figures"][column]
    return None if value is None else 100 * value
