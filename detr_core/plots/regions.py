"""Shows the share of attention in regions of an image, as bars and as a table, for the studies of attention."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detr_core.plots.sections import Section
from detr_core.plots.study_section import StudyText, read_metrics, study_section
from detr_core.plots.style import COLORS, INK, files, plot
from detr_core.plots.tables import Row, Table


@dataclass(frozen=True)
class AttentionPicture:
    """An image and what a study of attention stored about it.

    pixels: uint8 [height, width, 3]. title: the title of the picture. entries: the points or objects of the image in `maps.json`,
    with their maps.
    """

    pixels: NDArray[np.uint8]
    title: str
    entries: list[dict[str, Any]]

    @property
    def grey(self) -> NDArray[np.float64]:
        """The image without colour, in three equal channels, 0..255."""
        return np.repeat(self.pixels.mean(axis=2, keepdims=True), 3, axis=2)


def read_pictures(folder: Path, entries: str) -> list[AttentionPicture]:
    """Returns the images of `maps.json` in a study's folder. entries: its key for what is shown, 'points' or 'objects'."""
    rows = json.loads((folder / "maps.json").read_text(encoding="utf-8"))
    return [
        AttentionPicture(np.asarray(Image.open(folder / row["file"])), f"image {row['image_id']}", row[entries]) for row in rows
    ]


def attention_section(
    study: str, text: StudyText, drawn: Sequence[Path], folder: Path, names: Mapping[str, str], published: Mapping[str, Any]
) -> Section:
    """Returns the report's section about a study of attention, with the table of its regions.

    drawn: the files of the plots. folder: the study's results. names: see `region_bars`.
    """
    return study_section(study, text, drawn, {"Attention by region": region_table(read_metrics(folder), names)}, published)


def region_bars(metrics: Mapping[str, float], names: Mapping[str, str], folder: Path, name: str, title: str) -> list[Path]:
    """Draws the share of attention in each region and the region's share of the image, in percent, as SVG and PNG.

    metrics: scalars with the keys '<region>/mass', '<region>/area' and '<region>/times'. names: region -> its label; regions that
    were not measured are left out. Returns the files written, or an empty list if nothing was measured.
    """
    measured = [(label, region) for region, label in names.items() if f"{region}/mass" in metrics]
    if not measured:
        return []
    with plot(folder, name) as axes:
        for row, (_, region) in enumerate(measured):
            mass, area = (100 * metrics[f"{region}/{part}"] for part in ("mass", "area"))
            axes.barh(row - 0.19, mass, 0.36, color=COLORS[0], label="of the attention" if row == 0 else None)
            axes.barh(row + 0.19, area, 0.36, color=INK, alpha=0.55, label="of the image" if row == 0 else None)
            axes.annotate(
                f"{metrics[f'{region}/times']:.1f} × uniform", (mass, row - 0.19), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=9,
            )  # fmt: skip
        axes.set_yticks(range(len(measured)), [label for label, _ in measured])
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.35 * max(100 * metrics[f"{r}/{part}"] for _, r in measured for part in ("mass", "area")))
        axes.set_title(f"{title}, percent")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    return files(folder, name)


def region_table(metrics: Mapping[str, float], names: Mapping[str, str]) -> Table:
    """Returns the table of what `region_bars` draws, with the same arguments."""
    rows: list[Row] = [
        (label, (100 * metrics[f"{name}/mass"], 100 * metrics[f"{name}/area"], metrics[f"{name}/times"]))
        for name, label in names.items()
        if f"{name}/mass" in metrics
    ]
    return Table("region", ("percent of the attention", "percent of the image", "times a uniform distribution"), rows)
