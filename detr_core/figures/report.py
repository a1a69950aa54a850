"""The report: one self-contained page about one profile, from the files that its stages wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detr_core.coco import is_coco
from detr_core.data.annotations import Annotations, read_annotations
from detr_core.data.dataset import Split, read_dataset
from detr_core.errors import ExpectedError
from detr_core.figures import tables
from detr_core.figures.curves import read_history, training_curves
from detr_core.figures.detections import SHOWN_SCORE, detection_pictures
from detr_core.figures.page import write_page
from detr_core.figures.panoptic import panoptic_pictures
from detr_core.figures.sections import Section, inline, jpeg, optional
from detr_core.figures.study_sections import study_sections
from detr_core.wording import counted

_HERE = Path(__file__).parent
_KEY_FIGURES = {
    "AP": "val/AP",
    "AP50": "val/AP50",
    "mask AP": "val/mask/AP",
    "PQ": "val/PQ",
    "SQ": "val/SQ",
    "RQ": "val/RQ",
}


class ReportError(ExpectedError, ValueError):
    """A results file that the report can't do without. The message names it and says what to do."""


def write_report(
    profile: str,
    data: Path,
    detection: Path,
    panoptic: Path,
    evaluation: Path,
    studies: Path,
    out: Path,
    pictures: int,
    links: Mapping[str, str],
    commands: Mapping[str, str],
) -> Path:
    """Writes `out`/index.html, the plots and pictures in it to `out`/figures, and the plots as SVG to `out`/vectors.

    Returns the page's path.

    data: dataset folder with `dataset.json`. detection, panoptic: trainings, with `history.jsonl`. evaluation: `metrics.json`,
    `per_class.json`, `errors.json`, `bbox.json`, and `panoptic.json` with `panoptic/*.png` where there is a mask head. studies:
    folder of study folders, of which those there are are shown. Only the dataset and
    `metrics.json` must be there; what else is missing is left out of the page.
    pictures: how many images are shown. links: what is known of where the results come from, by name: an http address becomes a
    link, text of several lines is folded. commands: for each of the profile's studies the one that carries it out, shown where it
    hasn't been.
    Raises ReportError without `metrics.json`, DatasetError for a dataset that can't be read.
    """
    split = read_dataset(data)["val"]
    if not (evaluation / "metrics.json").is_file():
        raise ReportError(
            f"{evaluation / 'metrics.json'}: expected an evaluation's figures, found no such file; run evaluate first"
        )
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    metrics = json.loads((evaluation / "metrics.json").read_bytes())
    published = json.loads((_HERE / "published.json").read_bytes())
    truth = read_annotations(split, "instances" if split.panoptic is None else "panoptic", masks=False)
    # Published figures were measured on COCO: beside a detector of other classes they would compare nothing.
    on_coco = is_coco(truth.categories)
    published_tables = {name: published[name] if on_coco else None for name in ("detection", "panoptic")}
    sections = [
        _detection(profile, split, detection, evaluation, figures, pictures, metrics, published_tables["detection"]),
        _errors(evaluation),
        _panoptic(profile, split, panoptic, evaluation, figures, pictures, metrics, published_tables["panoptic"]),
        *study_sections(studies, figures, published, commands),
    ]
    key_figures = {name: tables.percent(metrics, key) for name, key in _KEY_FIGURES.items() if metrics.get(key, -1) >= 0}
    shown = [section for section in sections if section is not None]
    page = write_page(profile, _summary(truth, detection, panoptic), key_figures, shown, links, out)
    vectors = out / "vectors"
    vectors.mkdir(exist_ok=True)
    for file in figures.glob("*.svg"):  # apart, so that whoever lists the pictures sees each plot once
        file.replace(vectors / file.name)
    return page


def _summary(truth: Annotations, detection: Path, panoptic: Path) -> str:
    """Says what was trained and on what it was measured, in a sentence or two."""
    trained = []
    for folder, name in ((detection, "a detector"), (panoptic, "a mask head on the frozen detector")):
        if (folder / "history.jsonl").is_file() and (records := read_history(folder / "history.jsonl")):
            steps, epochs = int(records[-1]["step"]), records[-1]["epoch"]
            trained.append(f"{name} for {counted(steps, 'step')} ({epochs:.3g} epoch{'' if epochs == 1 else 's'})")
    things = sum(category.isthing for category in truth.categories)
    stuff = len(truth.categories) - things
    classes = f"{counted(things, 'class', 'classes')} of things" + (f" and {stuff} of stuff" if stuff else "")
    measured = f"Measured on {counted(len(truth.image_ids), 'validation image')}, {classes}."
    return (f"Trained: {', then '.join(trained)}. " if trained else "") + measured


def _detection(
    profile: str,
    split: Split,
    training: Path,
    evaluation: Path,
    figures: Path,
    pictures: int,
    metrics: Mapping[str, float],
    published: Mapping[str, Any] | None,
) -> Section:
    shown = {"Average precision and recall": tables.average_precision(metrics)}
    per_class = optional(evaluation / "per_class.json")
    if per_class.get("bbox"):
        shown["By class"] = tables.average_precision_per_class(per_class)
    if published is not None:
        shown["Beside published figures"] = tables.beside_published(metrics, published, profile)
    drawn = detection_pictures(split, evaluation, figures, pictures) if (evaluation / "bbox.json").is_file() else []
    return Section(
        "detection",
        "Detection",
        ["COCO's measures on the validation images, in percent."],
        _curves(training, figures, "detection"),
        shown,
        _pictures(drawn, "Detections"),
        f"Ground truth on the left, detections of score {SHOWN_SCORE:g} and above on the right. "
        "The images are evenly spaced over the validation set, not picked by hand.",
    )


def _errors(evaluation: Path) -> Section | None:
    breakdown = optional(evaluation / "errors.json")
    if not breakdown:
        return None
    text = (
        "By how much AP50 would rise if each kind of error were mended alone (TIDE, Bolya et al. 2020), and how many there are."
    )
    return Section("errors", "What the errors are made of", [text], tables={"": tables.errors(breakdown)})


def _panoptic(
    profile: str,
    split: Split,
    training: Path,
    evaluation: Path,
    figures: Path,
    pictures: int,
    metrics: Mapping[str, float],
    published: Mapping[str, Any] | None,
) -> Section | None:
    if "val/PQ" not in metrics:
        return None
    shown = {"Panoptic quality": tables.panoptic_quality(metrics)}
    per_class = optional(evaluation / "per_class.json")
    if per_class.get("panoptic"):
        shown["By class"] = tables.panoptic_quality_per_class(per_class["panoptic"])
    if published is not None:
        shown["Beside published figures"] = tables.beside_published(metrics, published, profile)
    drawn = panoptic_pictures(split, evaluation, figures, pictures) if (evaluation / "panoptic.json").is_file() else []
    return Section(
        "panoptic",
        "Panoptic segmentation",
        ["Every pixel belongs to one object or one kind of stuff. PQ = SQ × RQ, class by class: how well matched segments "
         "overlap, and how many are matched. In percent."],
        _curves(training, figures, "panoptic"),
        shown,
        _pictures(drawn, "Panoptic maps"),
        "The image, its ground truth and the prediction. Objects of one class are shades of its colour; "
        "what no segment claims is dark.",
    )  # fmt: skip


def _curves(training: Path, figures: Path, name: str) -> list[Markup]:
    if not (training / "history.jsonl").is_file():
        return []
    return [inline(path) for path in training_curves(training / "history.jsonl", figures, name) if path.suffix == ".svg"]


def _pictures(files: Sequence[Path], what: str) -> list[tuple[str, str]]:
    return [(jpeg(file), f"{what} of image {file.stem.rpartition('_')[2]}") for file in files]
