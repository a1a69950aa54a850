"""Writes a report as one HTML page that contains its plots (SVG) and pictures (data URLs) and needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jinja2

from detr_core.plots import tables
from detr_core.plots.sections import Link, Section

_LONGEST_ADDRESS = 60  # largest number of characters in the text of a link


def write_page(
    profile: str,
    summary: str,
    key_metrics: Mapping[str, float | None],
    sections: Sequence[Section],
    links: Mapping[str, str],
    out: Path,
    top: Link | None = None,
) -> Path:
    """Writes `out`/index.html, a page that loads no other file: summary, key metrics in large type, sections, links.

    top: a link to another page, below the summary.
    """
    page = (
        templates()
        .get_template("report.html.j2")
        .render(profile=profile, summary=summary, key_metrics=key_metrics, sections=sections, links=links, top=top)
    )
    (out / "index.html").write_text(page, encoding="utf-8")
    return out / "index.html"


def templates() -> jinja2.Environment:
    """Returns the templates of this folder, with the filters that they use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = tables.number
    environment.filters["short_address"] = _short_address
    return environment


def _short_address(address: str) -> str:
    """Returns the host and the beginning of the path of an address, as the text of a link."""
    parts = urlsplit(address)
    text = unquote(parts.netloc + parts.path + (f"#{parts.fragment}" if parts.fragment else "")).partition("?")[0].rstrip("/#")
    return text if len(text) <= _LONGEST_ADDRESS else f"{text[:_LONGEST_ADDRESS]}…"
