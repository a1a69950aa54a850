"""Builds the report's tables from results files. Published metrics are kept apart from measured ones.

The tables show percentages, as papers do; the files hold 0..1. COCO's -1 (no ground truth to measure on) becomes None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detr_core.numbers import signed

Row = tuple[str, tuple[float | None, ...]]

AP_METRICS = {
    "AP": "IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small, below 32² px",
    "APm": "medium, 32² to 96² px",
    "APl": "large, above 96² px",
    "AR1": "1 detection per image",
    "AR10": "10 detections per image",
    "AR100": "100 detections per image",
    "ARs": "small",
    "ARm": "medium",
    "ARl": "large",
}
TIDE_ERRORS = {
    "Cls": "correct location, wrong class",
    "Loc": "correct class, poor location",
    "Both": "wrong class and poor location",
    "Dupe": "second detection of an object",
    "Bkg": "detection of background",
    "Miss": "missed object",
}
_PANOPTIC_PARTS = {"all": "", "things": "_things", "stuff": "_stuff"}


@dataclass(frozen=True)
class Table:
    """A table of numbers.

    corner: the head of the first column, which holds names. columns: the other heads. rows: the measured rows. published: rows
    from the publication `source`, which are marked, shown below and sorted separately. notes: name of a row -> small text beside
    it. bars: whether the first column's percentages are drawn as bars, where a full bar is 100 percent. signed: whether numbers
    have a sign. decimals: column -> number of decimals of measured rows, if it is not 1.
    """

    corner: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    published: Sequence[Row] = ()
    source: str = ""
    notes: Mapping[str, str] | None = None
    bars: bool = False
    signed: bool = False
    decimals: Mapping[str, int] = field(default_factory=dict)


def percent(metrics: Mapping[str, float], name: str) -> float | None:
    """Returns a metric in percent; None if it is absent or -1."""
    value = metrics.get(name, -1.0)
    return None if value < 0 else 100 * value


def number(value: float | None, sign: bool = False, decimals: int = 1) -> str:
    """Formats a cell of a table: a count as a whole number, another number with `decimals`, a missing value as a dash."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return signed(value, decimals) if sign else signed(value, decimals).removeprefix("+")


def average_precision(metrics: Mapping[str, float]) -> Table:
    """Returns the table of COCO's twelve metrics of boxes and, if they were measured, of masks."""
    kinds = {"boxes": "val/", "masks": "val/mask/"}
    kinds = {kind: prefix for kind, prefix in kinds.items() if f"{prefix}AP" in metrics}
    rows = [(name, tuple(percent(metrics, prefix + name) for prefix in kinds.values())) for name in AP_METRICS]
    return Table("metric", tuple(kinds), rows, notes=AP_METRICS)


def panoptic_quality(metrics: Mapping[str, float]) -> Table:
    """Returns the table of PQ, SQ and RQ over all classes, things and stuff."""
    names = ("PQ", "SQ", "RQ")
    rows = [(part, tuple(percent(metrics, f"val/{name}{end}") for name in names)) for part, end in _PANOPTIC_PARTS.items()]
    return Table("classes", names, rows)


def beside_published(metrics: Mapping[str, float], published: Mapping[str, Any], run: str) -> Table:
    """Returns the table of this run's metrics and the published rows of the same metrics.

    published: a section of published.json. run: the name of this run's row.
    """
    columns = tuple(name for name in published["rows"][0] if name not in ("model", "parameters", "gflops", "images_per_second"))
    measured = (run, tuple(percent(metrics, f"val/{name}") for name in columns))
    rows = [(row["model"], tuple(row[name] for name in columns)) for row in published["rows"]]
    heads = tuple(name.replace("_", " ").replace("mask/", "mask ") for name in columns)
    return Table("model", heads, [measured], rows, published["source"])


def errors(breakdown: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Returns the table of TIDE's kinds of errors (Bolya et al. 2020): the loss of AP50 and the number of errors of each kind."""
    kinds = {kind: breakdown[part] for part, kind in (("bbox", "boxes"), ("segm", "masks")) if part in breakdown}
    columns = [f"{column}, {kind}" for kind in kinds for column in ("AP50 lost", "errors")]
    rows: list[Row] = [
        (error, tuple(value for part in kinds.values() for value in (100 * part["gain"][error], int(part["count"][error]))))
        for error in TIDE_ERRORS
    ]
    return Table("error", tuple(columns), rows, notes=TIDE_ERRORS, bars=True)


def average_precision_per_class(per_class: Mapping[str, Mapping[str, float]]) -> Table:
    """Returns the table of each class's AP of boxes and, if measured, of masks. per_class: the content of per_class.json."""
    kinds = {kind: per_class[part] for part, kind in (("bbox", "boxes"), ("segm", "masks")) if part in per_class}
    names = next(iter(kinds.values()), {})
    rows = [(name, tuple(percent(part, name) for part in kinds.values())) for name in names]
    return Table("class", tuple(f"AP, {kind}" for kind in kinds), rows, bars=True)


def panoptic_quality_per_class(per_class: Mapping[str, Mapping[str, float]]) -> Table:
    """Returns the table of PQ, SQ and RQ of each class that occurs."""
    rows = [(name, tuple(percent(row, metric) for metric in ("pq", "sq", "rq"))) for name, row in per_class.items()]
    return Table("class", ("PQ", "SQ", "RQ"), rows, bars=True)
