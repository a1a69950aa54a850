"""Holds the evaluating studies: each module of this package is one, and its constant `STUDY` says what it is.

A study has the name of its module with hyphens: the module decoder_nms.py is the study `decoder-nms`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, cast

from detr_core.studies.study import EvaluatingStudy


def _study(module: str) -> EvaluatingStudy[Any]:
    return cast(EvaluatingStudy[Any], importlib.import_module(f"{__name__}.{module}").STUDY)


EVALUATING: dict[str, EvaluatingStudy[Any]] = {
    module.name.replace("_", "-"): _study(module.name) for module in pkgutil.iter_modules(__path__)
}
"""The evaluating studies by name."""
