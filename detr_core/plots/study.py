"""Presents a study that trains variants: plots, a table and sentences from its `study.json`, with the paper's metrics."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detr_core.evaluate.metric_names import PANOPTIC_METRICS
from detr_core.numbers import signed
from detr_core.plots.style import COLORS, files, legend, plot
from detr_core.plots.tables import TIDE_ERRORS, Row, Table
from detr_core.studies import comparison
from detr_core.studies.comparison import Run, finished, mean_difference, read_table, spread

_PUBLISHED = Path(__file__).parent / "published.json"
_COLUMNS = ("AP", "AP50", "APs", "APm", "APl", "PQ", "PQ_things", "PQ_stuff", "mask/AP")  # of every study that measured them
_ALL_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", *PANOPTIC_METRICS, "mask/AP")  # the others only if they are published
_COST = {
    "parameters": "M parameters",
    "gflops": "GFLOPs",
    "gflops_of_size": "GFLOPs, one size",
    "images_per_second": "images/s",
}


def published(study: str) -> dict[str, Any]:
    """Returns the paper's metrics of a study: {'source', 'rows': [{'model': name, 'AP': percent, ...}]}; 'rows' may be empty."""
    content: dict[str, Any] = json.loads(_PUBLISHED.read_bytes())
    section = content.get(study, {"source": "", "rows": []})
    if "rows" not in section and "models" in section:  # the section selects rows of another table
        table = content[section["table"]]
        rows = [row for row in table["rows"] if row["model"] in section["models"]]
        section = {"source": table["source"], "rows": rows}
    return section if "rows" in section else {"source": "", "rows": []}


def study_plots(table: Path, folder: Path) -> list[Path]:
    """Draws a `study.json` into `folder`, in percent.

    Writes STUDY_measured (one row per variant, with a dot for each seed and a larger dot for their mean), STUDY_curves (val AP by
    epoch), STUDY_quality_curves (val PQ by epoch) and STUDY_published (the paper's rows, on the paper's data), each as SVG and
    PNG. Empty plots are left out, and curves if no variant was validated more than once. Returns the files written.
    """
    content = read_table(table)
    runs, metric, written = finished(content), _metric(content), []
    if runs:
        name = f"{content.study}_measured"
        rows = {variant: _values(variant_runs, metric) for variant, variant_runs in runs.items()}
        with plot(folder, name) as axes:
            _dots(axes, {_label(variant, content): values for variant, values in rows.items()}, COLORS[0])
            axes.set_title(f"{metric}, percent: measured, profile {content.profile}")
        written += files(folder, name)
    first = {variant: variant_runs[0] for variant, variant_runs in runs.items()}
    for suffix, title, curves in (
        ("curves", "AP", {variant: run.curve for variant, run in first.items()}),
        ("quality_curves", "PQ", {variant: run.quality_curve for variant, run in first.items()}),
    ):
        written += _curves(f"{title} during training, percent", curves, folder, f"{content.study}_{suffix}")
    published_values = {row["model"]: [row[metric]] for row in published(content.study)["rows"] if row.get(metric) is not None}
    if published_values:
        name = f"{content.study}_published"
        with plot(folder, name) as axes:
            _dots(axes, published_values, COLORS[1])
            axes.set_title(f"{metric}, percent: published, COCO val")
        written += files(folder, name)
    return written


def study_table(table: Path) -> Table:
    """Returns the table of the measured variants (means over seeds) and the published rows of the study, with costs."""
    content = read_table(table)
    runs, published_section = finished(content), published(content.study)
    shown = {*_COLUMNS, *(name for row in published_section["rows"] for name in row)}
    names = [
        name
        for name in _ALL_COLUMNS
        if name in shown and any(spread(variant_runs, f"val/{name}") for variant_runs in runs.values())
    ]
    has_pq = any(mean_difference(variant_runs, "PQ") for variant_runs in runs.values())
    compared = ("AP", "PQ") if has_pq else ("AP",)
    rows: list[Row] = []
    for variant, variant_runs in runs.items():
        values: list[float | None] = []
        for name in names:
            metric_spread = spread(variant_runs, f"val/{name}")
            values.append(None if metric_spread is None else 100 * metric_spread.mean)
        for name in compared:
            difference = mean_difference(variant_runs, name)
            bounds = (None, None, None) if difference is None else (difference.value, difference.low, difference.high)
            values += [None if bound is None else 100 * bound for bound in bounds]
        values += [_cost(variant_runs[0], name) for name in _COST]
        rows.append((_label(variant, content), (*values, len(variant_runs))))
    blank = [None] * 3 * len(compared)
    published_rows: list[Row] = [
        (row["model"], (*(row.get(name) for name in names), *blank, *(row.get(name) for name in _COST), None))
        for row in published_section["rows"]
    ]
    heads = tuple(_head(name) for name in names)
    difference_heads = tuple(head for name in compared for head in (f"{name} minus base", "from", "to"))
    columns = (*heads, *difference_heads, *_COST.values(), "seeds")
    return Table(
        "variant", columns, rows, published_rows, published_section["source"], decimals=dict.fromkeys(list(_COST.values())[:3], 2)
    )


def published_table(study: str) -> Table | None:
    """Returns the table of the paper's metrics of a study that has no results; None if the paper has no such table."""
    section = published(study)
    names = [name for name in (*_ALL_COLUMNS, *_COST) if any(name in row for row in section["rows"])]
    rows: list[Row] = [(row["model"], tuple(row.get(name) for name in names)) for row in section["rows"]]
    return Table("variant", tuple(_head(name) for name in names), [], rows, section["source"]) if rows else None


def errors_table(table: Path) -> Table | None:
    """Returns the loss of AP50 of each variant by kind of error of its boxes (TIDE, Bolya et al. 2020), as a mean over seeds.

    Returns None for a table without errors, which earlier versions wrote.
    """
    content = read_table(table)
    rows: list[Row] = []
    for variant, variant_runs in finished(content).items():
        errors = [run.errors for run in variant_runs if run.errors]
        if errors:
            values = [100 * statistics.fmean(of_run[error] for of_run in errors) for error in TIDE_ERRORS]
            rows.append((_label(variant, content), (*values, len(errors))))
    return Table("AP50 lost by errors of this kind", (*TIDE_ERRORS, "seeds"), rows) if rows else None


def study_texts(table: Path, command: str) -> list[str]:
    """Returns sentences about the study's result, the paper's result, failed or missing runs, and the method.

    command: the command that runs the missing variants; '' if there is none.
    """
    content = read_table(table)
    runs, metric = finished(content), _metric(content)
    measured = {variant: values[0] for variant, variant_runs in runs.items() if (values := _mean(variant_runs, metric))}
    texts = [_conclusion(measured, metric, content, runs)] if len(measured) > 1 else []
    published_values = {
        row["model"]: float(row[metric]) for row in published(content.study)["rows"] if row.get(metric) is not None
    }
    if len(published_values) > 1:
        best, worst = (
            max(published_values, key=published_values.__getitem__),
            min(published_values, key=published_values.__getitem__),
        )
        texts.append(
            f"Published ({content.paper}), on COCO: {metric} from {published_values[worst]:.1f} ({worst}) to "
            f"{published_values[best]:.1f} ({best})."
        )
    missing_runs = [run for run in content.runs if run.status != "finished"]
    if missing_runs:
        names = ", ".join(f"{run.variant}, seed {run.seed} ({run.error or 'not finished'})" for run in missing_runs)
        texts.append(f"The table lacks these runs: {names}." + (f" This command runs them: {command}" if command else ""))
    if runs:
        texts.append(_method(content))
    machines = list(dict.fromkeys(str(run.cost["machine"]) for variant_runs in runs.values() for run in variant_runs if run.cost))
    if machines:
        texts.append(
            "A difference from the base has a 95% bootstrap interval over the validation images, averaged over seeds. "
            f"A multiply-add counts as one FLOP; GFLOPs and images/s are means over the first 100 validation images, "
            f"on {', '.join(machines)}{_one_size(runs)}."
        )
    return texts


def _curves(title: str, curves: Mapping[str, Sequence[tuple[float, float]]], folder: Path, name: str) -> list[Path]:
    """Draws a metric by epoch for each variant, unless none was validated more than once. Returns the files written."""
    if max(map(len, curves.values()), default=0) < 2:
        return []
    with plot(folder, name) as axes:
        lines = []
        for (variant, points), color in zip(curves.items(), COLORS * 2, strict=False):
            if points:
                epochs, values = zip(*points, strict=True)
                lines += axes.plot(epochs, [100 * value for value in values], "o-", ms=3.5, color=color, label=variant)
        axes.set_title(title)
        axes.set_xlabel("epochs")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        legend(axes, lines, loc="best")
    return files(folder, name)


def _method(content: comparison.StudyTable) -> str:
    """Returns the sentence that says which validations the metrics are from, and which runs have fewer than they should."""
    if content.median_of == 1:
        return "The metrics are those of the evaluation after the last epoch."
    text = f"Each metric of boxes is the median over the validations of the last {content.median_of} epochs, as in the paper."
    incomplete_runs = [run for run in content.runs if run.status == "finished" and run.validations < content.median_of]
    names = ", ".join(f"{run.variant}, seed {run.seed} ({run.validations})" for run in incomplete_runs)
    return f"{text} These runs have fewer validations than that: {names}." if incomplete_runs else text


def _one_size(runs: Mapping[str, Sequence[Run]]) -> str:
    sizes = dict.fromkeys(
        str(run.cost["size"]) for variant_runs in runs.values() for run in variant_runs if run.cost and "size" in run.cost
    )
    return f"; the GFLOPs of one size are those of an image of {', '.join(sizes)} pixels" if sizes else ""


def _cost(run: Run, name: str) -> float | None:
    value = (run.cost or {}).get(name)
    return None if value is None else float(value)


def _conclusion(
    measured: Mapping[str, float], metric: str, content: comparison.StudyTable, runs: Mapping[str, Sequence[Run]]
) -> str:
    best, worst = max(measured, key=measured.__getitem__), min(measured, key=measured.__getitem__)
    text = f"{metric} is highest with {best!r} ({measured[best]:.1f}) and lowest with {worst!r} ({measured[worst]:.1f})"
    if round(measured[best], 1) == round(measured[worst], 1):
        return f"{metric} is the same with all variants ({measured[best]:.1f})."
    if content.base not in measured:
        return f"{text}."
    parts = []
    for variant in measured:
        if variant != content.base:
            difference = mean_difference(runs[variant], metric)
            certain = difference is None or difference.low > 0 or difference.high < 0
            doubt = "" if certain else ", which may be chance"
            parts.append(f"{variant!r} {signed(measured[variant] - measured[content.base])}{doubt}")
    return f"{text}; against {content.base!r}: {'; '.join(parts)}."


def _metric(content: comparison.StudyTable) -> str:
    """Returns the main metric of a study: PQ if its variants have mask heads, else AP."""
    runs = [run for run in content.runs if run.metrics]
    return "PQ" if runs and all("val/PQ" in (run.metrics or {}) for run in runs) else "AP"


def _values(runs: Sequence[Run], metric: str) -> list[float]:
    return [100 * run.metrics[f"val/{metric}"] for run in runs if run.metrics and run.metrics.get(f"val/{metric}", -1.0) >= 0]


def _mean(runs: Sequence[Run], metric: str) -> list[float]:
    metric_spread = spread(runs, f"val/{metric}")
    return [] if metric_spread is None else [100 * metric_spread.mean]


def _head(name: str) -> str:
    return _COST.get(name, name.replace("_", " ").replace("mask/", "mask "))


def _label(variant: str, content: comparison.StudyTable) -> str:
    return f"{variant} (base)" if variant == content.base else variant


def _dots(axes: Axes, rows: Mapping[str, Sequence[float]], color: str) -> None:
    for position, values in enumerate(rows.values()):
        if not values:
            continue
        mean = sum(values) / len(values)
        axes.plot([min(values), max(values)], [position, position], color=color, linewidth=1.2, alpha=0.6)
        if len(values) > 1:
            axes.plot(values, [position] * len(values), "o", ms=3.5, color=color, alpha=0.6)
        axes.plot([mean], [position], "o", ms=7, color=color)
        axes.annotate(f"{mean:.1f}", (mean, position), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.7)
    axes.margins(x=0.12)
    axes.grid(axis="x")
