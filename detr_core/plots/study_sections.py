"""Puts the report's sections about the studies into their order, and lists the studies without results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detr_core.data.splits import Split
from detr_core.plots.compared_maps import compared_pictures, pair_of
from detr_core.plots.sections import Section, inline, jpeg
from detr_core.plots.studies import plots_by_study
from detr_core.plots.study import errors_table, published_table, study_plots, study_table, study_texts
from detr_core.studies.comparison import read_table


@dataclass(frozen=True)
class Shown:
    """The val split, and the number of its images that the report shows of each sort."""

    split: Split
    pictures: int


def study_sections(
    studies: Path, out: Path, published: Mapping[str, Any], commands: Mapping[str, str], val: Shown
) -> list[Section]:
    """Returns a section for each study with results: first evaluating studies, then training studies, in the paper's order.

    The last section has the published metrics and the commands of the studies without results.
    studies: the folder with `evaluating/<study>/` and `training/<study>/`. out: the folder to which plots are written. published:
    the content of published.json, which has the order of the paper. commands: study -> the command that runs it. val: the images
    on which the panoptic maps of two variants are compared.
    """
    modules = plots_by_study()
    measured = [file.parent for file in studies.glob("evaluating/*/metrics.json") if file.parent.name in modules]
    trained = [file.parent for file in studies.glob("training/*/study.json")]
    sections = [
        modules[folder.name].section(folder, out, published.get(folder.name, {})) for folder in _in_order(measured, published)
    ]
    sections += [
        _training_section(folder / "study.json", out, commands.get(folder.name, ""), val)
        for folder in _in_order(trained, published)
    ]
    ids = {section.id for section in sections}
    missing = [name for name in commands if f"study-{name}" not in ids]
    if missing:
        text = "These studies of the profile have no results yet. The commands run them and update this page."
        tables = {_title(name): table for name in missing if (table := published_table(name)) is not None}
        titled = {_title(name): commands[name] for name in missing}
        sections.append(Section("studies-not-run", "Studies without results", [text], tables=tables, commands=titled))
    return sections


def _in_order(folders: Iterable[Path], published: Mapping[str, Any]) -> list[Path]:
    """Returns the folders of studies in the order of published.json, then the others by name."""
    order = list(published)
    return sorted(folders, key=lambda folder: (order.index(folder.name) if folder.name in order else len(order), folder.name))


def _training_section(table: Path, out: Path, command: str, val: Shown) -> Section:
    name = table.parent.name
    plots = [inline(path) for path in study_plots(table, out) if path.suffix == ".svg"]
    tables = {"Measured and published metrics": study_table(table)}
    if (errors := errors_table(table)) is not None:
        tables["Errors of the boxes, by kind (TIDE)"] = errors
    section = Section(f"study-{name}", _title(name), study_texts(table, command), plots, tables)
    pair = pair_of(read_table(table), table.parent)
    if pair is None:
        return section
    pictures = [(jpeg(file), description) for file, description in compared_pictures(pair, val.split, out, val.pictures)]
    return replace(section, pictures=pictures, pictures_text=pair.rule)


def _title(name: str) -> str:
    return name.replace("-", " ").capitalize()
