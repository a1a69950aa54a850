"""The table of a study that trains: what each run measured, and how sure its difference from the base variant is.

`study.json` holds the whole table and is all that figures, report and comparisons read; `study.csv` has a row a run.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from detr_core.atomic import write_text
from detr_core.evaluate.average_precision import GroundTruth, bootstrap_difference

SAMPLES = 1000  # of the images, for an interval


@dataclass(frozen=True)
class Difference:
    """A run's AP less the base's under the same seed, 0..1, and the 95% interval of it over bootstrap samples of the images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Run:
    """One variant under one seed.

    overrides: of the profile, by dotted key; varied: those that make variants differ, with the values they have here. status:
    `open` where it was not finished; error: why it failed. Of a finished one: metrics, named scalars ('val/AP'); curve, pairs of
    epoch and val/AP while it trained; cost, as `Cost`.
    """

    variant: str
    seed: int
    overrides: Mapping[str, Any]
    varied: Mapping[str, Any]
    status: Literal["finished", "failed", "open"]
    error: str | None = None
    metrics: Mapping[str, float] | None = None
    curve: Sequence[tuple[float, float]] = ()
    cost: Mapping[str, Any] | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class Table:
    """All runs of a study of a profile. paper: where it stands in the paper. base: the variant others are compared with."""

    study: str
    profile: str
    paper: str
    base: str
    runs: Sequence[Run]


@dataclass(frozen=True)
class Spread:
    """Of one figure over seeds: mean, smallest and largest, and how many seeds."""

    mean: float
    low: float
    high: float
    seeds: int


def difference(ground_truth: GroundTruth, base: Path, other: Path) -> Difference:
    """How much higher the AP of the results file `other` is than that of `base`, on the same images."""
    return Difference(*bootstrap_difference(ground_truth, base, other, SAMPLES))


def write_table(table: Table, folder: Path) -> Path:
    """Writes `study.json` and `study.csv` into `folder`, each as a whole or not at all; returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(run) for run in table.runs]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "study.csv", text.getvalue())
    write_text(folder / "study.json", json.dumps(asdict(table), indent=1) + "\n")
    return folder / "study.json"


def read_table(file: Path) -> Table:
    """The table of a `study.json`."""
    content = json.loads(file.read_text(encoding="utf-8"))
    runs = [
        Run(**(run | {"difference": None if run["difference"] is None else Difference(**run["difference"])}))
        for run in content["runs"]
    ]
    return Table(**(content | {"runs": runs}))


def finished(table: Table) -> dict[str, list[Run]]:
    """The finished runs by variant, in the study's order."""
    found: dict[str, list[Run]] = {}
    for run in table.runs:
        if run.status == "finished":
            found.setdefault(run.variant, []).append(run)
    return found


def spread(runs: Sequence[Run], metric: str) -> Spread | None:
    """A figure of a variant over its seeds; None where it wasn't measured (COCO's -1 counts as that)."""
    values = [run.metrics[metric] for run in runs if run.metrics and run.metrics.get(metric, -1.0) >= 0]
    return Spread(statistics.fmean(values), min(values), max(values), len(values)) if values else None


def mean_difference(runs: Sequence[Run]) -> Difference | None:
    """Over seeds: the mean of the differences and of their bounds, which is no narrower than the interval of the mean."""
    found = [run.difference for run in runs if run.difference is not None]
    if not found:
        return None
    return Difference(*(statistics.fmean(getattr(each, name) for each in found) for name in ("value", "low", "high")))


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": run.variant, "seed": run.seed, "status": run.status}
    row |= run.varied
    row |= run.metrics or {}
    if run.difference is not None:
        row |= {f"AP minus base, {name}": value for name, value in asdict(run.difference).items()}
    return row | dict(run.cost or {})
