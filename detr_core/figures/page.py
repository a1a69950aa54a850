"""The page that a report is: plots stand in it as SVG, pictures as data. It opens from a disk and without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from detr_core.figures import tables
from detr_core.figures.sections import Section


def write_page(
    profile: str,
    summary: str,
    key_figures: Mapping[str, float | None],
    sections: Sequence[Section],
    links: Mapping[str, str],
    out: Path,
) -> Path:
    """Writes `out`/index.html, a page that fetches nothing: summary, figures in large, sections, links."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = tables.number
    page = environment.get_template("report.html.j2").render(
        profile=profile, summary=summary, key_figures=key_figures, sections=sections, links=links
    )
    (out / "index.html").write_text(page, encoding="utf-8")
    return out / "index.html"
