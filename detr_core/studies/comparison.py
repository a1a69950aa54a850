"""Writes and reads the table of a training study.

The table has the metrics of each run, and the confidence intervals of their differences from the base variant. `study.json` holds
the whole table; plots, report and comparisons read only this file. `study.csv` has one row per run.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from detr_core.atomic import write_text
from detr_core.evaluate.average_precision import Difference
from detr_core.studies.claims import Claim, read_claim

COMPARED = ("AP", "mask/AP", "PQ", "PQ_things", "PQ_stuff")  # the metrics whose difference from the base the table has


@dataclass(frozen=True)
class Run:
    """One variant with one seed.

    overrides: dotted key of the profile -> value. varied: the overrides in which variants differ. status: `open` means that the
    run is not finished. error: why the run failed. A finished run has metrics, named scalars such as 'val/AP'; curve, pairs
    (epoch, val/AP) of the validations during the detector's training; quality_curve, pairs (epoch, val/PQ) of the validations
    that computed panoptic quality, whose epochs are those of both trainings; and cost, the fields of `Cost`. differences: metric
    -> its value minus that of the base with the same seed, for the metrics of COMPARED that both have; empty for the base.
    validations: the metrics of boxes are medians over this number of validations. made_by: a digest of the data and of the code
    that all variants share; runs with different digests can't be compared. errors: the loss of AP50 by kind of error of the
    boxes, 0..1, as in TIDE.
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
    differences: Mapping[str, Difference] = field(default_factory=dict)
    validations: int = 1
    made_by: str | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    quality_curve: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class StudyTable:
    """All runs of a study with a profile.

    paper: the place of the study in the paper. base: the variant that the other variants are compared with. median_of: the
    metrics of boxes are medians over the validations of this number of last epochs; 1 means the evaluation after the last epoch.
    claims: the paper's claims with their verdicts.
    """

    study: str
    profile: str
    paper: str
    base: str
    runs: Sequence[Run]
    median_of: int = 1
    claims: Sequence[Claim] = ()


@dataclass(frozen=True)
class SeedSpread:
    """A metric over seeds: its mean, smallest and largest value, and the number of seeds."""

    mean: float
    low: float
    high: float
    seeds: int


def write_table(table: StudyTable, folder: Path) -> Path:
    """Writes `study.json` and `study.csv` into `folder`, each atomically. Returns the path of `study.json`."""
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


def read_table(file: Path) -> StudyTable:
    """Returns the table of a `study.json`.

    Earlier versions wrote only the difference of AP, and the measured values of a claim in words. Such a claim is left out; the
    study's command decides it again.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    claims = [read_claim(claim) for claim in content.get("claims", []) if "differences" in claim]
    return StudyTable(**(content | {"runs": [_run(run) for run in content["runs"]], "claims": claims}))


def _run(content: dict[str, Any]) -> Run:
    earlier = content.pop("difference", None)
    differences = content.get("differences", {} if earlier is None else {"AP": earlier})
    return Run(**(content | {"differences": {name: Difference(**difference) for name, difference in differences.items()}}))


def finished(table: StudyTable) -> dict[str, list[Run]]:
    """Returns variant -> its finished runs, in the study's order."""
    runs: dict[str, list[Run]] = {}
    for run in table.runs:
        if run.status == "finished":
            runs.setdefault(run.variant, []).append(run)
    return runs


def spread(runs: Sequence[Run], metric: str) -> SeedSpread | None:
    """Returns a variant's metric over its seeds; None if it was not measured, which includes COCO's -1."""
    values = [run.metrics[metric] for run in runs if run.metrics and run.metrics.get(metric, -1.0) >= 0]
    return SeedSpread(statistics.fmean(values), min(values), max(values), len(values)) if values else None


def mean_difference(runs: Sequence[Run], metric: str) -> Difference | None:
    """Returns the mean over seeds of the differences of a metric and of their bounds; None without differences.

    The interval of the mean bounds is at least as wide as the interval of the mean difference.
    """
    differences = [run.differences[metric] for run in runs if metric in run.differences]
    if not differences:
        return None
    return Difference(
        *(statistics.fmean(getattr(difference, name) for difference in differences) for name in ("value", "low", "high"))
    )


def _row(run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": run.variant, "seed": run.seed, "status": run.status}
    row |= run.varied
    row |= run.metrics or {}
    for metric, difference in run.differences.items():
        row |= {f"{metric} minus base, {name}": value for name, value in asdict(difference).items()}
    return row | dict(run.cost or {})
