"""Draws the plots and report sections of the evaluating studies: one module for each, with the name of the study's own module.

Such a module has two functions. `plots(folder, out)` draws the results in `folder`, as `run` of the study writes them, into `out`
as SVG and PNG, and returns the files. `section(folder, out, published)` returns the study's section of the report, whose plots go
to `out`. published: the study's section of published.json, which is empty if there are no published results.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from detr_core.plots.sections import Section


class StudyPlots(Protocol):
    """What a module of this package provides."""

    def plots(self, folder: Path, out: Path) -> list[Path]: ...

    def section(self, folder: Path, out: Path, published: Mapping[str, Any]) -> Section: ...


def plots_by_study() -> dict[str, StudyPlots]:
    """Returns the modules of this package by the name of their study."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name.replace("_", "-"): cast(StudyPlots, importlib.import_module(f"{__name__}.{name}")) for name in names}
