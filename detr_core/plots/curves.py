"""Plots training curves: the loss and the validation metrics by step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detr_core.plots.style import COLORS, files, plot

PARTS = tuple(f"train/{part}" for part in ("classification", "l1", "giou", "focal", "dice", "objectness", "proposals", "boxes"))
VALIDATION = ("val/AP", "val/AP50", "val/AP75", "val/mask/AP", "val/mask/AP50", "val/PQ", "val/SQ", "val/RQ")


def read_history(history: Path) -> list[dict[str, float]]:
    """Returns the records of a `history.jsonl`, one per line: {"step": .., "epoch": .., "train/loss": .., "val/AP": ..}."""
    return [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines() if line]


def training_curves(history: Path, folder: Path, name: str) -> list[Path]:
    """Draws `history` (a `history.jsonl`) into `folder`, by optimizer step.

    Writes NAME_loss (train/loss), NAME_parts (the unweighted terms of the loss) and NAME_validation (AP, AP50, AP75 of boxes, AP,
    AP50 of masks, PQ, SQ, RQ, in percent), each as SVG and PNG. A plot without a line of at least two points is left out.
    Returns the files written.
    """
    records = read_history(history)
    written: list[Path] = []
    for suffix, title, keys, scale in (
        ("loss", "Loss", ("train/loss",), 1),
        ("parts", "Unweighted terms of the loss", PARTS, 1),
        ("validation", "Validation, percent", VALIDATION, 100),
    ):
        recorded = {key: points for key in keys if len(points := _series(records, key, scale)) > 1}
        if not recorded:
            continue
        with plot(folder, f"{name}_{suffix}") as axes:
            for (key, points), color in zip(recorded.items(), COLORS, strict=False):
                _line(axes, points, key.partition("/")[2], color)
            axes.set_ylim(bottom=0)
            axes.set_title(title)
            axes.set_xlabel("optimizer steps")
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(6))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            if len(recorded) > 1:
                axes.legend(loc="best", ncols=min(3, len(recorded)))
        written += files(folder, f"{name}_{suffix}")
    return written


def _series(records: Sequence[Mapping[str, float]], key: str, scale: float) -> list[tuple[float, float]]:
    # COCO's metrics are -1 if there is no ground truth to measure them on.
    return [(record["step"], scale * record[key]) for record in records if record.get(key, -1) >= 0]


def _line(axes: Axes, points: Sequence[tuple[float, float]], label: str, color: str) -> None:
    steps, values = zip(*points, strict=True)
    axes.plot(steps, values, label=label, color=color, marker="o" if len(points) <= 40 else None, markersize=3.5)
