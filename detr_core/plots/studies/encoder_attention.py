"""Plots the self-attention of the last encoder layer (Figure 3 of the paper): maps of chosen points beside their image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from detr_core.plots.regions import attention_section, read_pictures, region_bars
from detr_core.plots.sections import Section
from detr_core.plots.study_section import StudyText, read_metrics
from detr_core.plots.style import COLORS, cased, drawing, files, picture

REGIONS = {"own": "the same object", "same_class": "other objects of its class", "others": "objects of other classes"}


def plots(folder: Path, out: Path) -> list[Path]:
    """Draws the results in `folder` (`maps.json`, its pictures, `metrics.json`) into `out`, as SVG and PNG.

    encoder_attention_maps: one row per image with the image, its numbered points, and the map of each point.
    encoder_attention_regions: the share of the attention in the point's own object and in other objects. Returns the files
    written.
    """
    shown = [image for image in read_pictures(folder, "points") if image.entries]
    metrics = read_metrics(folder)
    written: list[Path] = []
    if shown:
        columns = 1 + max(len(image.entries) for image in shown)
        name = "encoder_attention_maps"
        with drawing(out, name, (1.55 * columns, 1.72 * len(shown))) as figure:
            for index, image in enumerate(shown):
                pixels, grey = image.pixels, image.grey.astype(np.uint8)
                whole = figure.add_subplot(len(shown), columns, index * columns + 1)
                picture(whole, pixels, image.title)
                for number, point in enumerate(image.entries, start=1):
                    color = COLORS[(number - 1) % len(COLORS)]
                    where = (point["x"] * pixels.shape[1] - 0.5, point["y"] * pixels.shape[0] - 0.5)
                    whole.annotate(
                        str(number), where, ha="center", va="center", fontsize=8, fontweight="bold", color="white",
                        bbox={"boxstyle": "circle,pad=0.25", "facecolor": color, "edgecolor": "#14161c", "linewidth": 0.8},
                    )  # fmt: skip
                    axes = figure.add_subplot(len(shown), columns, index * columns + 1 + number)
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
    text = StudyText(
        "Attention of the encoder",
        conclusion(read_metrics(folder)),
        "The last encoder layer's self-attention from the centre of every object, averaged over the heads.",
    )
    return attention_section("encoder-attention", text, plots(folder, out), folder, REGIONS, published)


def conclusion(metrics: Mapping[str, float]) -> str:
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
