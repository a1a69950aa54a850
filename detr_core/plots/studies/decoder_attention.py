"""Plots the decoder attention of detected objects (Figure 6 of the paper) and the boxes of each query (Figure 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from detr_core.plots.pictures import category_colors
from detr_core.plots.regions import AttentionPicture, attention_section, read_pictures, region_bars
from detr_core.plots.sections import Section
from detr_core.plots.study_section import StudyText, read_metrics
from detr_core.plots.style import COLORS, INK, cased, drawing, files, picture

REGIONS = {"extremities": "along the box", "interior": "inside the box", "outside": "elsewhere"}
SLOTS = 20  # queries whose boxes are shown, as in the paper
LARGE = 0.5  # square root of a box's share of the image from which the box has the colour of a large one
_DIM = 0.6  # brightness of the image under the attention maps
_SMALL_COLOR, _WIDE_COLOR, _TALL_COLOR = (np.asarray(to_rgb(COLORS[i])) for i in (2, 4, 0))


def plots(folder: Path, out: Path) -> list[Path]:
    """Draws the results in `folder` (`maps.json`, its pictures, `boxes.npy`, `metrics.json`) into `out`, as SVG and PNG.

    decoder_attention_maps: images with the box of every detected object and, in the same colour, the attention of its query.
    decoder_attention_regions: the share of the attention along the box, inside the box and elsewhere. decoder_attention_queries:
    one square per query with the centres of all its boxes over the val set, green for small boxes, red for large and wide ones,
    blue for large and tall ones. Returns the files written.
    """
    metrics = read_metrics(folder)
    _maps(read_pictures(folder, "objects"), out)
    _queries(np.load(folder / "boxes.npy"), out)
    title = "Attention of a detected object's query"
    return [
        *files(out, "decoder_attention_maps"),
        *region_bars(metrics, REGIONS, out, "decoder_attention_regions", title),
        *files(out, "decoder_attention_queries"),
    ]


def section(folder: Path, out: Path, published: Mapping[str, Any]) -> Section:
    """Returns the report's section about the study."""
    text = StudyText(
        "Attention of the decoder",
        conclusion(read_metrics(folder)),
        "The last decoder layer's attention for every detected object, and the boxes that each query predicts.",
    )
    return attention_section("decoder-attention", text, plots(folder, out), folder, REGIONS, published)


def conclusion(metrics: Mapping[str, float]) -> str:
    """Returns the result of the study in one sentence computed from its metrics; '' if no object was detected."""
    if "extremities/times" not in metrics or "interior/times" not in metrics:
        return ""
    border, inside = metrics["extremities/times"], metrics["interior/times"]
    verdict = "on the extremities" if border > inside else "inside rather than on the extremities"
    return (
        f"In the last decoder layer, attention along a detected object's box is {border:.1f} times that of a uniform "
        f"distribution, and attention inside the box {inside:.1f} times: attention is {verdict}."
    )


def _maps(shown: Sequence[AttentionPicture], out: Path) -> None:
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    with drawing(out, "decoder_attention_maps", (2.5 * columns, 2.75 * lines)) as figure:
        for position, image in enumerate(shown, start=1):
            objects = image.entries
            colors = [np.asarray(color) / 255 for color in category_colors(range(len(objects))).values()]
            axes = figure.add_subplot(lines, columns, position)
            maps = [np.asarray(detected["map"]) for detected in objects]
            picture(axes, _overlaid(image, maps, colors), image.title)
            height, width = image.pixels.shape[:2]
            for detected, color in zip(objects, colors, strict=True):
                cx, cy, w, h = detected["box"]
                corner = ((cx - w / 2) * width - 0.5, (cy - h / 2) * height - 0.5)
                box = Rectangle(corner, w * width, h * height, fill=False, linewidth=1.3, edgecolor=color)
                box.set_path_effects(cased(2.3))
                axes.add_patch(box)


def _overlaid(image: AttentionPicture, maps: Sequence[NDArray[Any]], colors: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    """Returns the image in dimmed grey with each map over it in its own colour, which is strongest at the map's maximum."""
    height, width = image.pixels.shape[:2]
    result = _DIM * image.grey / 255
    for attention, color in zip(maps, colors, strict=True):
        share = Image.fromarray((attention / attention.max()).astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        strength = np.clip(np.asarray(share), 0, 1)[..., None]
        result = (1 - strength) * result + strength * color
    return np.asarray(np.clip(255 * result, 0, 255).round(), dtype=np.uint8)


def _queries(boxes: NDArray[np.float32], out: Path) -> None:
    queries = boxes.shape[1]
    indices = [position * queries // min(SLOTS, queries) for position in range(min(SLOTS, queries))]
    columns = min(8 if len(indices) <= 16 else 10, len(indices))
    lines = -(-len(indices) // columns)
    with drawing(out, "decoder_attention_queries", (1.05 * columns, 1.22 * lines + 0.25)) as figure:
        marks = [
            Line2D([], [], color=tuple(color.tolist()), marker="o", ms=5, linewidth=0, label=label)
            for label, color in (("small boxes", _SMALL_COLOR), ("large and wide", _WIDE_COLOR), ("large and tall", _TALL_COLOR))
        ]
        figure.legend(handles=marks, loc="outside lower center", ncols=3)
        for position, query in enumerate(indices, start=1):
            axes = figure.add_subplot(lines, columns, position)
            x, y, width, height = boxes[:, query].T
            # The points are rasterized, because an SVG with the points of thousands of images would be megabytes large.
            axes.scatter(x, y, s=2.2, c=box_colors(width, height), alpha=0.5, linewidths=0, rasterized=True)
            axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
            axes.grid(visible=False)
            axes.set_title(f"query {query + 1}", fontsize=8, loc="center", pad=3)
            for spine in axes.spines.values():
                spine.set(visible=True, color=INK, linewidth=0.5)


def box_colors(width: NDArray[Any], height: NDArray[Any]) -> NDArray[Any]:
    """Returns colours of boxes, RGB [N, 3] in 0..1: green for small boxes, red for large wide ones, blue for large tall ones.

    width, height [N]: shares of the image's sides.
    """
    size = np.clip(np.sqrt(width * height) / LARGE, 0, 1)[:, None]
    wide = np.clip(0.5 + 0.5 * np.log2(np.maximum(width, 1e-6) / np.maximum(height, 1e-6)), 0, 1)[:, None]
    large = wide * _WIDE_COLOR + (1 - wide) * _TALL_COLOR
    return np.asarray((1 - size) * _SMALL_COLOR + size * large)
