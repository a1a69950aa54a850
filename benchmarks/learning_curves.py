"""Draws AP and PQ by epoch for all variants of several studies of a profile in one picture.

`python benchmarks/learning_curves.py STUDY... --profile demo --out curves.png` needs the results of these studies. The epochs of
a mask head are counted after those of its detector.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detr_core.plots.style import COLORS
from detr_core.studies.comparison import Run, finished, read_table
from flows.profile.paths import Paths

STYLES = ("-", "--", ":")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="+")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs: dict[str, Run] = {}
    for study in arguments.study:
        file = Paths(arguments.profile).training_studies / study / "study.json"
        if not file.exists():
            parser.error(f"expected the results of the study in {file}, found none; run `python -m flows.studies {study}` first")
        runs |= {f"{study}: {variant}": of_variant[0] for variant, of_variant in finished(read_table(file)).items()}
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    for index, (name, run) in enumerate(runs.items()):
        style = {"color": COLORS[index % len(COLORS)], "linestyle": STYLES[index // len(COLORS)], "label": name}
        draw(left, run.curve, style)
        draw(right, run.quality_curve, style)
    for axes, metric in ((left, "AP"), (right, "PQ")):
        axes.set_title(f"{metric} by epoch, percent")
        axes.set_xlabel("epochs")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    figure.savefig(arguments.out, dpi=100)


def draw(axes: Axes, points: Sequence[tuple[float, float]], style: dict[str, str]) -> None:
    """Draws one curve, if there is one."""
    if points:
        epochs, values = zip(*points, strict=True)
        axes.plot(epochs, [100 * value for value in values], marker="o", markersize=4, **style)


if __name__ == "__main__":
    main()
