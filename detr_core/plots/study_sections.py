"""Builds the report's sections about the studies: plots, a table, a sentence about the result, and the paper's result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detr_core.plots import decoder_attention, encoder_attention, instance_count, scoring, tables
from detr_core.plots.decoder_nms import decoder_nms_plots, finding, read_cells
from detr_core.plots.decoder_nms_tables import decoder_nms, decoder_nms_beside_published
from detr_core.plots.sections import Section, inline
from detr_core.plots.study import study_plots, study_table, study_texts
from detr_core.plots.tables import Row, Table

Draw = Callable[[Path, Path, Mapping[str, Any]], Section]


def study_sections(studies: Path, plots: Path, published: Mapping[str, Any], commands: Mapping[str, str]) -> list[Section]:
    """Returns a section for each study with results below `studies`: first evaluating studies, then training studies.

    Training studies have the order of the paper. The last section lists the commands of studies without results.
    figures: the folder to which plots are written. published: the content of published.json, which has the order of the paper.
    commands: study -> the command that runs it.
    """
    found = [
        draw(studies / name, plots, published)
        for name, draw in _EVALUATING.items()
        if (studies / name / "metrics.json").is_file()
    ]
    order = list(published)
    trained = [file.parent.name for file in studies.glob("*/study.json")]
    trained.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
    found += [_trained(studies / name / "study.json", plots, commands.get(name, "")) for name in trained]
    ids = {section.id for section in found}
    missing = {_title(name): command for name, command in commands.items() if f"study-{name}" not in ids}
    if missing:
        text = "These studies of the profile have no results yet. The commands run them and update this page."
        found.append(Section("studies-not-run", "Studies without results", [text], commands=missing))
    return found


def _decoder_nms(study: Path, plots: Path, published: Mapping[str, Any]) -> Section:
    cells = study / "cells.json"
    grid = read_cells(cells)
    text = (
        "The output of every decoder layer was scored like that of the last layer, in one pass of one model over the val images."
    )
    return Section(
        "study-decoder-nms",
        "Decoder depth and NMS",
        [sentence for sentence in (finding(grid), text) if sentence],
        _plots(decoder_nms_plots(cells, plots)),
        {
            "AP and AP50 by decoder layer": decoder_nms(grid),
            "Comparison with published metrics": decoder_nms_beside_published(grid, published["decoder_nms"]),
        },
    )


def _instance_count(study: Path, plots: Path, published: Mapping[str, Any]) -> Section:
    content = instance_count.read_counts(study / "counts.json")
    cells = content[0]["visible"][-1]
    shown = sorted({round(cells * part / 4) for part in (1, 2, 3, 4)} - {0})
    rows: list[Row] = [
        (each["name"], (int(each["most_in_training"]), *(100 * each["missed"]["mean"][visible - 1] for visible in shown)))
        for each in content
    ]
    columns = ("most in a training image", *(f"missed of {visible}, percent" for visible in shown))
    return Section(
        "study-instance-count",
        "Number of instances in an image",
        _said(
            instance_count.finding(content),
            published["instance-count"],
            "The images show copies of one object on a grid whose cells are masked at random. Missed objects are visible copies "
            "without a detection.",
        ),
        _plots(instance_count.instance_count_plots(study / "counts.json", plots)),
        {"Missed objects": Table("class", columns, rows)},
    )


def _encoder_attention(study: Path, plots: Path, published: Mapping[str, Any]) -> Section:
    metrics = _metrics(study)
    return Section(
        "study-encoder-attention",
        "Attention of the encoder",
        _said(
            encoder_attention.finding(metrics),
            published["encoder-attention"],
            "The last encoder layer's self-attention from the centre of every object, averaged over the heads.",
        ),
        _plots(encoder_attention.encoder_attention_plots(study, plots)),
        {"Attention by region": _regions(metrics, encoder_attention.REGIONS)},
    )


def _decoder_attention(study: Path, plots: Path, published: Mapping[str, Any]) -> Section:
    metrics = _metrics(study)
    return Section(
        "study-decoder-attention",
        "Attention of the decoder",
        _said(
            decoder_attention.finding(metrics),
            published["decoder-attention"],
            "The last decoder layer's attention for every detected object, and the boxes that each query predicts.",
        ),
        _plots(decoder_attention.decoder_attention_plots(study, plots)),
        {"Attention by region": _regions(metrics, decoder_attention.REGIONS)},
    )


def _scoring(study: Path, plots: Path, published: Mapping[str, Any]) -> Section:
    curves = scoring.read_scores(study / "scores.json")
    rows: list[Row] = [
        (f"{threshold:g}", (*(tables.percent(curves[override][threshold], "AP") for override in (True, False)),
         *(tables.percent(on, name) for name in scoring.SHARES)))
        for threshold, on in curves[True].items()
    ]  # fmt: skip
    columns = ("AP", "AP without empty slots", *scoring.SHARES)
    return Section(
        "study-scoring",
        "Score threshold and empty slots",
        _said(
            scoring.finding(curves),
            published["scoring"],
            "Detections below the score threshold are dropped. Empty slots are scored by their second-best class, or left out.",
        ),
        _plots(scoring.scoring_plots(study / "scores.json", plots)),
        {"By score threshold": Table("score", columns, rows)},
    )


def _title(name: str) -> str:
    return name.replace("-", " ").capitalize()


def _trained(table: Path, plots: Path, command: str) -> Section:
    name = table.parent.name
    return Section(
        f"study-{name}",
        _title(name),
        study_texts(table, command),
        _plots(study_plots(table, plots)),
        {"Measured and published metrics": study_table(table)},
    )


_EVALUATING: dict[str, Draw] = {
    "decoder-nms": _decoder_nms,
    "instance-count": _instance_count,
    "encoder-attention": _encoder_attention,
    "decoder-attention": _decoder_attention,
    "scoring": _scoring,
}


def _said(finding: str, published: Mapping[str, str], text: str) -> list[str]:
    # If there are several sentences, the page shows the first one in larger type.
    return [*filter(None, [finding]), f"Published: {published['finding']} ({published['source']}).", text]


def _regions(metrics: Mapping[str, float], names: Mapping[str, str]) -> Table:
    rows: list[Row] = [
        (label, (100 * metrics[f"{name}/mass"], 100 * metrics[f"{name}/area"], metrics[f"{name}/times"]))
        for name, label in names.items()
        if f"{name}/mass" in metrics
    ]
    return Table("region", ("percent of the attention", "percent of the image", "times a uniform distribution"), rows)


def _plots(files: Sequence[Path]) -> list[Markup]:
    return [inline(path) for path in files if path.suffix == ".svg"]


def _metrics(study: Path) -> dict[str, float]:
    return dict(json.loads((study / "metrics.json").read_bytes()))
