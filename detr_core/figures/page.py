"""The page that a report is: plots stand in it as SVG, pictures as data. It opens from a disk and without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import jinja2

from detr_core.figures import tables
from detr_core.figures.sections import Section

_LONGEST_ADDRESS = 60  # characters of a link's text


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
    environment.filters["short_address"] = _short_address
    page = environment.get_template("report.html.j2").render(
        profile=profile, summary=summary, key_figures=key_figures, sections=sections, links=links
    )
    (out / "index.html").write_text(page, encoding="utf-8")
    return out / "index.html"


def _short_address(address: str) -> str:
    """The host and the beginning of the path, for a person to read; the whole address is the link's target."""
    parts = urlsplit(address)
    text = unquote(parts.netloc + parts.path + (f"#{parts.fragment}" if parts.fragment else "")).partition("?")[0].rstrip("/#")
    return text if len(text) <= _LONGEST_ADDRESS else f"{text[:_LONGEST_ADDRESS]}…"
