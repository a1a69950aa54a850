"""Writes the report, one self-contained page about one profile, from the files that its stages wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detr_core.coco import is_coco
from detr_core.data.annotation_reader import read_annotations
from detr_core.data.annotations import Annotations
from detr_core.data.splits import Split, read_dataset
from detr_core.errors import ExpectedError
from detr_core.plots import tables
from detr_core.plots.claims import PAGE, DecidedClaim, ProfileStudies, decided_claims, link_to, summary
from detr_core.plots.claims_page import write_claims_page
from detr_core.plots.curves import read_history, training_curves
from detr_core.plots.detections import SHOWN_SCORE, detection_pictures
from detr_core.plots.page import write_page
from detr_core.plots.panoptic import panoptic_pictures
from detr_core.plots.sections import Link, Section, inline, jpeg, optional
from detr_core.plots.study_sections import Shown, study_sections
from detr_core.wording import counted

_HERE = Path(__file__).parent
_KEY_METRICS = {
    "AP": "val/AP",
    "AP50": "val/AP50",
    "mask AP": "val/mask/AP",
    "PQ": "val/PQ",
    "SQ": "val/SQ",
    "RQ": "val/RQ",
}


class ReportError(ExpectedError, ValueError):
    """A results file that the report requires is missing. The message names it and says what to do."""


@dataclass(frozen=True)
class Results:
    """The folders with the results of a profile.

    profile: its name. data: the dataset, with `dataset.json`. detection, panoptic: the trainings, with `history.jsonl`.
    evaluation: has `metrics.json`, `per_class.json`, `errors.json`, `bbox.json` and, with a mask head, `panoptic.json` and
    `panoptic/*.png`. studies: has `evaluating/<study>/` and `training/<study>/`. The dataset and `metrics.json` must exist.
    """

    profile: str
    data: Path
    detection: Path
    panoptic: Path
    evaluation: Path
    studies: Path


@dataclass(frozen=True)
class _Validation:
    """The val split, the metrics that were measured on it, and the number of its images that the report shows."""

    split: Split
    metrics: Mapping[str, float]
    pictures: int


def write_report(results: Results, out: Path, pictures: int, links: Mapping[str, str], studies: ProfileStudies) -> Path:
    """Writes `out`/index.html, its plots and pictures to `out`/plots, and the plots as SVG to `out`/vectors.

    It also writes the page of the paper's claims to `out`/claims.html, if the profile states claims.
    Results that do not exist have no section. pictures: the number of images shown.
    links: name -> value about the origin of the results; an http address becomes a link, text of several lines is folded.
    studies: the profile's studies, with their claims and the commands that run them.
    Returns the path of the page. Raises ReportError without `metrics.json`, DatasetError for a dataset that can't be read.
    """
    split = read_dataset(results.data)["val"]
    file = results.evaluation / "metrics.json"
    if not file.is_file():
        raise ReportError(f"{file}: expected an evaluation's metrics, found no such file; run the stage evaluate first")
    plots = out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    val = _Validation(split, json.loads(file.read_bytes()), pictures)
    published = json.loads((_HERE / "published.json").read_bytes())
    truth = read_annotations(split, "instances" if split.panoptic is None else "panoptic", masks=False)
    # Published metrics were measured on COCO, so they can't be compared with those of a detector of other classes.
    on_coco = is_coco(truth.categories)
    published_tables = {name: published[name] if on_coco else None for name in ("detection", "panoptic")}
    claims = decided_claims(results.studies, studies)
    sections = [
        _detection(results, val, plots, published_tables["detection"]),
        _errors(results.evaluation),
        _panoptic(results, val, plots, published_tables["panoptic"]),
        _claims(claims),
        *(
            _with_claims(section, claims)
            for section in study_sections(results.studies, plots, published, studies.commands, Shown(split, pictures))
        ),
    ]
    key_metrics = {name: tables.percent(val.metrics, key) for name, key in _KEY_METRICS.items() if val.metrics.get(key, -1) >= 0}
    existing_sections = [section for section in sections if section is not None]
    top = None
    if claims:
        write_claims_page(results.profile, claims, studies, out)
        top = Link(PAGE, "The paper's claims with their verdicts")
    text = _summary(truth, results.detection, results.panoptic)
    page = write_page(results.profile, text, key_metrics, existing_sections, links, out, top)
    vectors = out / "vectors"
    vectors.mkdir(exist_ok=True)
    for file in plots.glob("*.svg"):  # the SVG files have a folder of their own, so that `plots` has each plot once
        file.replace(vectors / file.name)
    return page


def _summary(truth: Annotations, detection: Path, panoptic: Path) -> str:
    """Returns one or two sentences about the trainings and the validation images."""
    trained = []
    for folder, name in ((detection, "a detector"), (panoptic, "a mask head")):
        if (folder / "history.jsonl").is_file() and (records := read_history(folder / "history.jsonl")):
            steps, epochs = int(records[-1]["step"]), records[-1]["epoch"]
            if folder == panoptic:
                name += " jointly with the detector" if "train/giou" in records[0] else " on the frozen detector"
            trained.append(f"{name} for {counted(steps, 'step')} ({epochs:.3g} epoch{'' if epochs == 1 else 's'})")
    things = sum(category.isthing for category in truth.categories)
    stuff = len(truth.categories) - things
    classes = f"{counted(things, 'class', 'classes')} of things" + (f" and {stuff} of stuff" if stuff else "")
    measured = f"The metrics were measured on {counted(len(truth.image_ids), 'validation image')} with {classes}."
    return (f"This run trained {', then '.join(trained)}. " if trained else "") + measured


def _detection(results: Results, val: _Validation, plots: Path, published: Mapping[str, Any] | None) -> Section:
    section_tables = {"Average precision and recall": tables.average_precision(val.metrics)}
    per_class = optional(results.evaluation / "per_class.json")
    if per_class.get("bbox"):
        section_tables["By class"] = tables.average_precision_per_class(per_class)
    if published is not None:
        section_tables["Comparison with published metrics"] = tables.beside_published(val.metrics, published, results.profile)
    exists = (results.evaluation / "bbox.json").is_file()
    pictures = detection_pictures(val.split, results.evaluation, plots, val.pictures) if exists else []
    return Section(
        "detection",
        "Detection",
        ["COCO's metrics on the validation images, in percent."],
        _curves(results.detection, plots, "detection"),
        section_tables,
        _pictures(pictures, "Detections"),
        f"The left side shows the ground truth, the right side the detections with a score of {SHOWN_SCORE:g} and above. "
        "The images are evenly spaced over the validation set and not selected by hand.",
    )


def _errors(evaluation: Path) -> Section | None:
    breakdown = optional(evaluation / "errors.json")
    if not breakdown:
        return None
    text = "The gain of AP50 if only one kind of error were corrected (TIDE, Bolya et al. 2020), and the number of these errors."
    return Section("errors", "Kinds of errors", [text], tables={"": tables.errors(breakdown)})


def _panoptic(results: Results, val: _Validation, plots: Path, published: Mapping[str, Any] | None) -> Section | None:
    if "val/PQ" not in val.metrics:
        return _instance_masks(results.panoptic, plots)
    section_tables = {"Panoptic quality": tables.panoptic_quality(val.metrics)}
    per_class = optional(results.evaluation / "per_class.json")
    if per_class.get("panoptic"):
        section_tables["By class"] = tables.panoptic_quality_per_class(per_class["panoptic"])
    if published is not None:
        section_tables["Comparison with published metrics"] = tables.beside_published(val.metrics, published, results.profile)
    exists = (results.evaluation / "panoptic.json").is_file()
    pictures = panoptic_pictures(val.split, results.evaluation, plots, val.pictures) if exists else []
    return Section(
        "panoptic",
        "Panoptic segmentation",
        ["Every pixel belongs to one object or one kind of stuff. For each class, PQ = SQ × RQ: SQ is the mean IoU of matched "
         "segments, RQ is the F1 score of the matching. All metrics are in percent."],
        _curves(results.panoptic, plots, "panoptic"),
        section_tables,
        _pictures(pictures, "Panoptic maps"),
        "Each picture shows the image, its ground truth and the prediction. Objects of a class have shades of its colour; "
        "pixels of no segment are dark.",
    )  # fmt: skip


def _instance_masks(training: Path, plots: Path) -> Section | None:
    """Returns the section of a mask head that was trained on masks of instances; None if no mask head was trained."""
    if not (training / "history.jsonl").is_file():
        return None
    text = (
        "The mask head was trained on the masks of the instances. Pixels of no instance belong to nothing that it has learned, "
        "so there are no panoptic maps. The section on detection has the average precision of the masks."
    )
    return Section("masks", "Masks of instances", [text], _curves(training, plots, "panoptic"))


def _claims(claims: Mapping[str, Sequence[DecidedClaim]]) -> Section | None:
    """Returns the section with the number of claims by verdict, and a link to the page of claims; None without claims."""
    if not claims:
        return None
    all_claims = [decided for study_claims in claims.values() for decided in study_claims]
    link = Link(PAGE, "All claims with published and measured values, intervals and verdicts")
    return Section("claims", "The paper's claims", [summary(all_claims)], link=link)


def _with_claims(section: Section, claims: Mapping[str, Sequence[DecidedClaim]]) -> Section:
    """Returns the section of a study with a link to the claims about it, if there are any."""
    study = section.id.removeprefix("study-")
    return replace(section, link=link_to(study, claims[study])) if study in claims else section


def _curves(training: Path, plots: Path, name: str) -> list[Markup]:
    if not (training / "history.jsonl").is_file():
        return []
    return [inline(path) for path in training_curves(training / "history.jsonl", plots, name) if path.suffix == ".svg"]


def _pictures(files: Sequence[Path], subject: str) -> list[tuple[str, str]]:
    return [(jpeg(file), f"{subject} of image {file.stem.rpartition('_')[2]}") for file in files]
