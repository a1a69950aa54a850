"""Plots AP, precision and recall against the score threshold, with and without empty-slot override (paper, section 4.1)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detr_core.numbers import signed
from detr_core.plots.sections import Section
from detr_core.plots.study_section import StudyText, study_section
from detr_core.plots.style import COLORS, files, plot
from detr_core.plots.tables import Row, Table, percent

Curves = dict[bool, dict[float, dict[str, float]]]
SHARES = ("precision", "recall", "F1")


def read_scores(scores: Path) -> Curves:
    """Returns the content of a `scores.json` as {empty_slot_override: {threshold: metrics}}, in ascending order of thresholds."""
    content: list[dict[str, Any]] = json.loads(scores.read_text(encoding="utf-8"))
    curves: Curves = {True: {}, False: {}}
    for selection in sorted(content, key=lambda selection: float(selection["threshold"])):
        curves[selection["empty_slot_override"]][selection["threshold"]] = selection["metrics"]
    return curves


def plots(folder: Path, out: Path) -> list[Path]:
    """Draws the `scores.json` of `folder` into `out`: metrics in percent against the threshold, as SVG and PNG.

    Returns the files written. scoring_AP: AP and AP50 with and without empty-slot override. scoring_precision: precision, recall
    and F1 at IoU 0.5, with empty-slot override.
    """
    curves = read_scores(folder / "scores.json")
    with plot(out, "scoring_AP") as axes:
        for name, color in zip(("AP50", "AP"), COLORS, strict=False):
            for override, line in ((True, "-"), (False, (0, (2, 2)))):
                row = curves[override]
                label = name if override else f"{name}, without empty slots"
                axes.plot(list(row), [100 * metrics[name] for metrics in row.values()], linestyle=line, color=color, label=label)
        axes.set_title("AP of detections above a score threshold, percent")
        axes.set_xlabel("score threshold")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 1)
        axes.legend(loc="lower left")
    with plot(out, "scoring_precision") as axes:
        row = curves[True]
        for name, color in zip(SHARES, COLORS, strict=False):
            axes.plot(list(row), [100 * metrics[name] for metrics in row.values()], color=color, label=name)
        axes.set_title("Precision and recall at IoU 0.5, percent")
        axes.set_xlabel("score threshold")
        axes.set_ylim(0, 100)
        axes.set_xlim(0, 1)
        axes.legend(loc="lower left", ncols=3)
    return files(out, "scoring_AP") + files(out, "scoring_precision")


def section(folder: Path, out: Path, published: Mapping[str, Any]) -> Section:
    """Returns the report's section about the study."""
    curves = read_scores(folder / "scores.json")
    rows: list[Row] = [
        (f"{threshold:g}", (*(percent(curves[override][threshold], "AP") for override in (True, False)),
         *(percent(metrics, name) for name in SHARES)))
        for threshold, metrics in curves[True].items()
    ]  # fmt: skip
    text = StudyText(
        "Score threshold and empty slots",
        conclusion(curves),
        "Detections below the score threshold are dropped. Empty slots are scored by their second-best class, or left out.",
    )
    tables = {"By score threshold": Table("score", ("AP", "AP without empty slots", *SHARES), rows)}
    return study_section("scoring", text, plots(folder, out), tables, published)


def conclusion(curves: Curves) -> str:
    """Returns the result of the study in one sentence computed from its metrics."""
    lowest = min(curves[True])
    on, off = (100 * curves[override][lowest]["AP"] for override in (True, False))
    best = max(curves[True], key=lambda threshold: curves[True][threshold]["F1"])
    text = f"Scoring empty slots by their second-best class changes AP by {signed(on - off)} (from {off:.1f} to {on:.1f})"
    cost = signed(100 * curves[True][best]["AP"] - on)
    return f"{text}; F1 at IoU 0.5 is best, {100 * curves[True][best]['F1']:.1f}, at score {best:g}, which changes AP by {cost}."
