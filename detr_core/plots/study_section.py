"""Builds the report's section about an evaluating study from the parts that differ between the studies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detr_core.plots.sections import Section, inline
from detr_core.plots.tables import Table


@dataclass(frozen=True)
class StudyText:
    """The texts of a study's section.

    title: its heading. conclusion: the result in one sentence, which the page shows in larger type; '' if there is none. method:
    what was measured, and how.
    """

    title: str
    conclusion: str
    method: str


def study_section(
    study: str, text: StudyText, plots: Sequence[Path], tables: Mapping[str, Table], published: Mapping[str, Any]
) -> Section:
    """Returns the section of a study: its conclusion, the published one, the method, the plots and the tables.

    study: its name. tables: title -> table. plots: files, of which the page shows those that end in .svg. published: the
    study's section of published.json.
    """
    published_sentence = f"Published: {published['conclusion']} ({published['source']})." if "conclusion" in published else ""
    sentences = [sentence for sentence in (text.conclusion, published_sentence, text.method) if sentence]
    drawings = [inline(path) for path in plots if path.suffix == ".svg"]
    return Section(f"study-{study}", text.title, sentences, drawings, tables)


def read_metrics(folder: Path) -> dict[str, float]:
    """Returns the content of the `metrics.json` in a study's folder."""
    return dict(json.loads((folder / "metrics.json").read_bytes()))
