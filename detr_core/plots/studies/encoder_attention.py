"""Plots the self-attention of the last encoder layer (Figure 3 of the paper): maps of chosen points beside their image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from detr_core.plots.regions import read_maps, region_bars, region_table
from detr_core.plots.sections import Section
from detr_core.plots.study_section import StudyText, read_metrics, study_section
from detr_core.plots.style import COLORS, cased, drawing, files, picture

REGIONS = {"own": "the same object", "same_class": "other objects of its class", "others": "objects of other classes"}


def plots(folder: Path, out: Path) -> list[Path]:
    """Draws the results in `folder` (`maps.json`, its pictures, `metrics.json`) into `out`, as SVG and PNG.

    encoder_attention_maps: one row per image with the image, its numbered points, and the map of each point.
    encoder_attention_regions: the share of the attention in the point's own object and in other objects. Returns the files
    written.
    """
    rows = [row for row in read_maps(folder / "maps.json") if row["points"]]
    metrics = read_metrics(folder)
    written: list[Path] = []
    if rows:
        columns = 1 + max(len(row["points"]) for row in rows)
        name = "encoder_attention_maps"
        with drawing(out, name, (1.55 * columns, 1.72 * len(rows))) as figure:
            for index, row in enumerate(rows):
                pixels = np.asarray(Image.open(folder / row["file"]))
                grey = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
                image = figure.add_subplot(len(rows), columns, index * columns + 1)
                picture(image, pixels, f"image {row['image_id']}")
                for number, point in enumerate(row["points"], start=1):
                    color = COLORS[(number - 1) % len(COLORS)]
                    where = (point["x"] * pixels.shape[1] - 0.5, point["y"] * pixels.shape[0] - 0.5)
                    image.annotate(
                        str(number), where, ha="center", va="center", fontsize=8, fontweight="bold", color="white",
                        bbox={"boxstyle": "circle,pad=0.25", "facecolor": color, "edgecolor": "#14161c", "linewidth": 0.8},
                    )  # fmt: skip
                    axes = figure.add_subplot(len(rows), columns, index * columns + 1 + number)
                    picture(axes, grey, f"{number} {point['category']}")
                    # The map is not smoothed, so that the picture shows its resolution.
                    extent = (-0.5, pixels.shape[1] - 0.5, pixels.shape[0] - 0.5, -0.5)
                    axes.imshow(np.asarray(point["map"]), extent=extent, cmap="viridis", vmin=0, alpha=0.75)
                    axes.plot(*where, "o", ms=5, mew=1.2, mfc="none", mec=color, path_effects=cased(2.4))
        written += files(out, name)
    title = "Attention from an object's centre"
    return written + region_bars(metrics, REGIONS, out, "encoder_attention_regions", title)


def section(folder: Path, out: Path, published: Mapping[str, Any]) -> Section:
    """Returns the report's section about the study."""
    metrics = read_metrics(folder)
    text = StudyText(
        "Attention of the encoder",
        finding(metrics),
        "The last encoder layer's self-attention from the centre of every object, averaged over the heads.",
    )
    tables = {"Attention by region": region_table(metrics, REGIONS)}
    return study_section("encoder-attention", text, plots(folder, out), tables, published)


def finding(metrics: Mapping[str, float]) -> str:
    """Returns the result of the study in one sentence computed from its metrics; '' if no object was measured."""
    if "own/times" not in metrics:
        return ""
    own_times = metrics["own/times"]
    text = f"From an object's centre, its own mask gets {own_times:.1f} times the attention of a uniform distribution"
    if "same_class/times" not in metrics:
        return f"{text}."
    class_times = metrics["same_class/times"]
    verdict = "instances are separated" if own_times > 1.5 * max(class_times, 1.0) else "instances are hardly separated"
    return f"{text}, the other objects of its class {class_times:.1f} times: {verdict}."
