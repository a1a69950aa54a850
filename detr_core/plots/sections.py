"""Defines the sections of the report's page, and prepares plots and pictures for it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detr_core.plots.style import INK
from detr_core.plots.tables import Table


@dataclass(frozen=True)
class Link:
    """A link to a page beside this one. text: what the link says."""

    address: str
    text: str


@dataclass(frozen=True)
class Section:
    """One section of the page: text, link, plots, tables (title -> table), commands, pictures, in this order.

    Empty parts are left out.

    commands: name of a study -> the command that runs it.
    """

    id: str
    title: str
    text: Sequence[str]
    plots: Sequence[Markup] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    pictures: Sequence[tuple[str, str]] = ()  # (address, description)
    pictures_text: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    link: Link | None = None


def inline(svg: Path) -> Markup:
    """Returns an SVG file as part of the page: in the page's text colour, and with ids that differ from those of other plots."""
    text = svg.read_text(encoding="utf-8")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{svg.stem}-", text[text.index("<svg") :])
    return Markup(text.replace(INK, "currentColor"))  # a plot of this project, whose labels matplotlib has escaped


def jpeg(file: Path) -> str:
    """Returns the picture as a data URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"


def optional(file: Path) -> dict[str, Any]:
    """Returns the content of a JSON file; {} if it does not exist."""
    return dict(json.loads(file.read_bytes())) if file.is_file() else {}
