"""The parts that the report's page is made of."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from detr_core.figures.style import INK
from detr_core.figures.tables import Table


@dataclass(frozen=True)
class Section:
    """One part of the page, in the order: text, plots, tables (title -> table), pictures. Empty ones are left out.

    commands: what -> the command that makes it.
    """

    id: str
    title: str
    text: Sequence[str]
    plots: Sequence[Markup] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    pictures: Sequence[tuple[str, str]] = ()  # (address, what it shows)
    pictures_text: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)


def inline(svg: Path) -> Markup:
    """The SVG as part of the page: in the page's text colour, its ids told apart from other plots'."""
    text = svg.read_text(encoding="utf-8")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{svg.stem}-", text[text.index("<svg") :])
    return Markup(text.replace(INK, "currentColor"))  # our own plot, whose labels matplotlib has escaped


def jpeg(file: Path) -> str:
    """The picture's address as data, in place of one to fetch."""
    return f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"


def optional(file: Path) -> dict[str, Any]:
    """The content of a JSON file; nothing where there is none."""
    return dict(json.loads(file.read_bytes())) if file.is_file() else {}
