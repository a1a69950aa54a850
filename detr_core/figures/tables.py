"""The report's tables, from results files: measured figures, and published ones that stand apart from them.

Everything is shown in percent, as papers do; files hold 0..1. COCO's -1 (nothing to measure on) becomes None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detr_core.figures.decoder_nms import Grid, gain, label, signed

Row = tuple[str, tuple[float | None, ...]]

AP_FIGURES = {
    "AP": "IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small, below 32² px",
    "APm": "medium, 32² to 96² px",
    "APl": "large, above 96² px",
    "AR1": "1 detection an image",
    "AR10": "10 detections an image",
    "AR100": "100 detections an image",
    "ARs": "small",
    "ARm": "medium",
    "ARl": "large",
}
TIDE_ERRORS = {
    "Cls": "right place, wrong class",
    "Loc": "right class, box too far off",
    "Both": "wrong class and box off",
    "Dupe": "a second box on a found object",
    "Bkg": "nothing there",
    "Miss": "an object nobody found",
}
_PANOPTIC_PARTS = {"all": "", "things": "_things", "stuff": "_stuff"}


@dataclass(frozen=True)
class Table:
    """A table of numbers. corner: head of the first column, which holds names. columns: the other heads.

    rows: measured; published: figures of others, shown below, marked and sorted apart, from `source`.
    notes: small print beside a row's name. bars: draw the first column's numbers, percentages, as bars of which a full one is
    100 percent. signed: write + and -.
    decimals: of columns whose measured figures need others than one.
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


def percent(figures: Mapping[str, float], name: str) -> float | None:
    """A figure in percent; None where it is absent or -1."""
    value = figures.get(name, -1.0)
    return None if value < 0 else 100 * value


def number(value: float | None, sign: bool = False, decimals: int = 1) -> str:
    """As it stands in a table: counts whole, figures with so many decimals, a dash for what could not be measured."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return signed(value, decimals) if sign else signed(value, decimals).removeprefix("+")


def average_precision(metrics: Mapping[str, float]) -> Table:
    """COCO's twelve figures, of boxes and, where there are any, of masks."""
    kinds = {"boxes": "val/", "masks": "val/mask/"}
    kinds = {kind: prefix for kind, prefix in kinds.items() if f"{prefix}AP" in metrics}
    rows = [(name, tuple(percent(metrics, prefix + name) for prefix in kinds.values())) for name in AP_FIGURES]
    return Table("figure", tuple(kinds), rows, notes=AP_FIGURES)


def panoptic_quality(metrics: Mapping[str, float]) -> Table:
    """PQ, SQ and RQ of all classes, things and stuff."""
    names = ("PQ", "SQ", "RQ")
    rows = [(part, tuple(percent(metrics, f"val/{name}{end}") for name in names)) for part, end in _PANOPTIC_PARTS.items()]
    return Table("classes", names, rows)


def beside_published(metrics: Mapping[str, float], published: Mapping[str, Any], run: str) -> Table:
    """This run's row above the published rows of the same figures; `published` is a section of published.json."""
    columns = tuple(name for name in published["rows"][0] if name not in ("model", "parameters", "gflops", "images_per_second"))
    measured = (run, tuple(percent(metrics, f"val/{name}") for name in columns))
    rows = [(row["model"], tuple(row[name] for name in columns)) for row in published["rows"]]
    heads = tuple(name.replace("_", " ").replace("mask/", "mask ") for name in columns)
    return Table("model", heads, [measured], rows, published["source"])


def errors(breakdown: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """TIDE's kinds of error (Bolya et al. 2020): the AP50 that each costs and how often it occurs, of boxes and of masks."""
    kinds = {kind: breakdown[part] for part, kind in (("bbox", "boxes"), ("segm", "masks")) if part in breakdown}
    columns = [f"{column}, {kind}" for kind in kinds for column in ("AP50 lost", "errors")]
    rows: list[Row] = [
        (error, tuple(value for part in kinds.values() for value in (100 * part["gain"][error], int(part["count"][error]))))
        for error in TIDE_ERRORS
    ]
    return Table("error", tuple(columns), rows, notes=TIDE_ERRORS, bars=True)


def average_precision_per_class(per_class: Mapping[str, Mapping[str, float]]) -> Table:
    """AP of each class, of boxes and, where there are any, of masks; `per_class` is the content of per_class.json."""
    kinds = {kind: per_class[part] for part, kind in (("bbox", "boxes"), ("segm", "masks")) if part in per_class}
    names = next(iter(kinds.values()), {})
    rows = [(name, tuple(percent(part, name) for part in kinds.values())) for name in names]
    return Table("class", tuple(f"AP, {kind}" for kind in kinds), rows, bars=True)


def panoptic_quality_per_class(per_class: Mapping[str, Mapping[str, float]]) -> Table:
    """PQ, SQ and RQ of each class that occurs."""
    rows = [(name, tuple(percent(row, figure) for figure in ("pq", "sq", "rq"))) for name, row in per_class.items()]
    return Table("class", ("PQ", "SQ", "RQ"), rows, bars=True)


def decoder_nms(grid: Grid) -> Table:
    """AP and AP50 after each decoder layer, for each NMS."""
    columns = tuple(f"{name}, {label(nms)}" for name in ("AP", "AP50") for nms in grid)
    depths = sorted({depth for row in grid.values() for depth in row})
    rows = [
        (str(depth), tuple(percent(row.get(depth, {}), name) for name in ("AP", "AP50") for row in grid.values()))
        for depth in depths
    ]
    return Table("decoder layers", columns, rows)


def decoder_nms_beside_published(grid: Grid, published: Mapping[str, Any]) -> Table:
    """What depth adds and what NMS adds at the last layer, measured and published; `published` is a section of published.json."""
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
