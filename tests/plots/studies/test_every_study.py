"""Every evaluating study has a module that draws it."""

from __future__ import annotations

from detr_core.plots.studies import plots_by_study
from detr_core.studies.evaluating import EVALUATING


def test_every_evaluating_study_has_plots_and_a_section() -> None:
    modules = plots_by_study()
    assert modules.keys() == EVALUATING.keys()
    assert all(callable(module.plots) and callable(module.section) for module in modules.values())
