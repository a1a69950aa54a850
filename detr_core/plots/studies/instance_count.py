"""Plots missed instances against the number of visible instances of a class (section 4.3 and appendix of the paper)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from detr_core.plots.sections import Section
from detr_core.plots.study_section import StudyText, study_section
from detr_core.plots.style import COLORS, INK, cased, drawing, files, legend, picture, plot
from detr_core.plots.tables import Row, Table

Counts = list[dict[str, Any]]
NEAR = 5.0  # percentage points: a share of missed objects this close to the smallest share counts as equally good


def read_counts(counts: Path) -> Counts:
    """Returns the content of a `counts.json`: {name, most_in_training, visible, missed: {mean, std}, example} of each class."""
    content: Counts = json.loads(counts.read_text(encoding="utf-8"))
    return content


def plots(folder: Path, out: Path) -> list[Path]:
    """Draws the `counts.json` of `folder` and the pictures beside it into `out`, as SVG and PNG. Returns the files written.

    instance_count_missed: the share of visible objects that are missed, mean and standard deviation over the repeats, with one
    line per class. instance_count_examples: one image per class with its detections. At most six classes are shown.
    """
    content = read_counts(folder / "counts.json")[: len(COLORS)]
    with plot(out, "instance_count_missed") as axes:
        largest_number = max(count["most_in_training"] for count in content)
        if largest_number < content[0]["visible"][-1]:
            axes.axvline(largest_number, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            side = 1 if largest_number < content[0]["visible"][-1] / 2 else -1  # the side of the line that has room for the text
            axes.annotate(
                f"most in a training image: {largest_number}", (largest_number, 1), xycoords=axes.get_xaxis_transform(),
                xytext=(4 * side, -2), textcoords="offset points", va="top", ha="left" if side > 0 else "right", fontsize=9,
            )  # fmt: skip
        highest, lines = 0.0, []
        for count, color in zip(content, COLORS, strict=False):
            mean, std = (100 * np.asarray(count["missed"][name]) for name in ("mean", "std"))
            lines += axes.plot(count["visible"], mean, color=color, label=count["name"])
            axes.fill_between(count["visible"], np.maximum(mean - std, 0), mean + std, color=color, alpha=0.08, linewidth=0)
            highest = max(highest, float(mean.max()))
        axes.set_title("Missed objects, percent of the visible objects")
        axes.set_xlabel("visible objects")
        axes.set_xlim(1, content[0]["visible"][-1])
        axes.set_ylim(0, min(100, 1.4 * highest + 5))
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        legend(axes, lines, loc="upper left", ncols=1 if len(content) < 5 else 2)
    columns = min(4, len(content))
    rows = -(-len(content) // columns)
    with drawing(out, "instance_count_examples", (2.05 * columns, 2.4 * rows)) as figure:
        for position, (count, color) in enumerate(zip(content, COLORS, strict=False), start=1):
            axes, example = figure.add_subplot(rows, columns, position), count["example"]
            title = f"{count['name']}: {example['found']} of {example['visible']} found"
            picture(axes, np.asarray(Image.open(folder / example["file"])), title)
            for x1, y1, x2, y2 in example["boxes"]:
                # In matplotlib whole numbers are the centres of pixels, in boxes they are the borders.
                box = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, linewidth=1.3, edgecolor=color)
                box.set_path_effects(cased(2.3))
                axes.add_patch(box)
    return files(out, "instance_count_missed") + files(out, "instance_count_examples")


def section(folder: Path, out: Path, published: Mapping[str, Any]) -> Section:
    """Returns the report's section about the study."""
    content = read_counts(folder / "counts.json")
    cells = content[0]["visible"][-1]
    numbers = sorted({round(cells * part / 4) for part in (1, 2, 3, 4)} - {0})
    rows: list[Row] = [
        (count["name"], (int(count["most_in_training"]), *(100 * count["missed"]["mean"][visible - 1] for visible in numbers)))
        for count in content
    ]
    text = StudyText(
        "Number of instances in an image",
        conclusion(content),
        "The images show copies of one object on a grid whose cells are masked at random. Missed objects are visible copies "
        "without a detection.",
    )
    columns = ("most in a training image", *(f"missed of {visible}, percent" for visible in numbers))
    tables = {"Missed objects": Table("class", columns, rows)}
    return study_section("instance-count", text, plots(folder, out), tables, published)


def conclusion(content: Counts) -> str:
    """Returns the result of the study in one sentence computed from its metrics."""
    mean = 100 * np.mean([count["missed"]["mean"] for count in content], axis=0)
    least, total = float(mean.min()), len(mean)
    good_number = int(np.flatnonzero(mean <= least + NEAR).max()) + 1
    largest_number = max(count["most_in_training"] for count in content)
    training = f"a training image contains at most {largest_number} objects of a class"
    if good_number == total:
        return f"The smallest share of missed objects is {least:.0f} percent; it hardly rises up to {total} objects; {training}."
    return (
        f"The smallest share of missed objects is {least:.0f} percent, with {int(mean.argmin()) + 1} visible objects; "
        f"up to {good_number} it is at most {NEAR:.0f} points higher; with all {total} it is {mean[-1]:.0f} percent; {training}."
    )
