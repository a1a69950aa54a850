"""The table of panoptic quality (Table 5 of the paper), from the figures that evaluations have written."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from detr_core.config import ConfigError

QUALITIES = tuple(f"{figure}{part}" for part in ("", "_things", "_stuff") for figure in ("PQ", "SQ", "RQ"))
COLUMNS = (*QUALITIES, "mask/AP")


@dataclass(frozen=True)
class PanopticRow:
    """One run. figures: by COLUMNS, 0..1; None for one that its data have no ground truth for."""

    name: str
    figures: dict[str, float | None]


def panoptic_rows(metrics: Mapping[str, Path]) -> list[PanopticRow]:
    """The rows of Table 5. metrics: the `metrics.json` of each run's evaluation, by the run's name.

    Raises ConfigError for a run without panoptic figures.
    """
    rows = []
    for name, file in metrics.items():
        content: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        found = {column: content.get(f"val/{column}") for column in COLUMNS}
        if found["PQ"] is None:
            raise ConfigError(
                f"{file}: val/PQ: expected panoptic quality of {name!r}, found none; evaluate a checkpoint with a mask head on "
                "data with panoptic ground truth"
            )
        # -1 is COCO's word for a figure that has no ground truth to be measured on.
        rows.append(PanopticRow(name, {key: None if value is None or value < 0 else value for key, value in found.items()}))
    return rows


def write_panoptic(rows: Sequence[PanopticRow], folder: Path) -> None:
    """Writes `table.json` (a list of PanopticRow), `table.csv` and the flat `metrics.json`: '<name>/val/PQ' and so on."""
    (folder / "table.json").write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    metrics = {f"{row.name}/val/{key}": value for row in rows for key, value in row.figures.items() if value is not None}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", *COLUMNS])
        for row in rows:
            table.writerow([row.name, *(row.figures[column] for column in COLUMNS)])
