"""Shows the statistics of a dataset and the settings that were chosen for it, before any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from detr_core.check.statistics import Statistics, quantile
from detr_core.model.spec import kind_of
from detr_core.wording import counted


def summary_table(profile: str, content: Mapping[str, Any], statistics: Mapping[str, Statistics], deep: str | None) -> Table:
    """Returns a table of a dataset's statistics and of the settings in the content of its new profile.

    statistics: those of 'train' and 'val'. deep: the sample type of images with more than 8 bits a value, None if none was found.
    """
    train, detection = statistics["train"], content["train_detection"]
    table = Table(title=f"Profile {profile}", title_justify="left", show_header=False)
    for name, split in statistics.items():
        images, objects = sum(split.objects.values()), sum(split.classes.values())
        most_text = f", at most {split.most_objects} an image" if objects else "; there is nothing to learn from"
        crowds = f", {counted(split.crowds, 'crowd')} (ignored by trainings)" if split.crowds else ""
        table.add_row(f"{name}", f"{counted(images, 'image')}, {counted(objects, 'object')}{crowds}{most_text}")
    classes = list(train.classes)
    names = escape(printable(", ".join(classes[:8])))  # a class may be called [x], which would be markup
    table.add_row("classes", f"{len(classes)}: {names}{', ...' if len(classes) > 8 else ''}")
    table.add_row("objects", f"the median size is {quantile(train.sides, 0.5)} pixels")
    if deep is not None:
        table.add_row("pixels", f"{deep} values, which the check's `value_range` scales to 8 bits")
    table.add_section()
    detector = content["detector"]
    table.add_row(
        "detector", detector["kind"] + (f", {counted(detector['queries'], 'query', 'queries')}" if "queries" in detector else "")
    )
    resize = content["evaluate"]["resize"]
    table.add_row("resize", f"short side {resize['short'][0]}, long side at most {resize['longest']}")
    table.add_row("epochs", f"{detection['epochs']}, {counted(detection['batch_size'], 'image')} a step")
    sources = {"panoptic": "trained on the panoptic annotations", "instances": "trained on the masks of the instances"}
    trained = detection if "masks" in kind_of(detector["kind"]).capabilities else content["train_panoptic"]
    table.add_row("masks", "none; only boxes are trained" if trained is None else sources[trained["targets"]])
    return table


def printable(text: str) -> str:
    """Returns a text in which characters that no terminal can print, such as half of a surrogate pair, are question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
