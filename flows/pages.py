"""Addresses of pages in MLflow's UI, which a terminal prints and the report links to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from urllib.parse import quote

OWN = "http://127.0.0.1:5000"  # where `make serve` shows the project's own record


def run_page(run_id: str, experiment_id: str) -> str:
    """One run."""
    return f"{experiment_page(experiment_id)}/runs/{run_id}"


def experiment_page(experiment_id: str) -> str:
    """All runs of an experiment."""
    return f"{_ui()}/#/experiments/{experiment_id}"


def compare_page(run_ids: Sequence[str], experiment_id: str) -> str:
    """These runs compared, all of them selected."""
    return f"{_ui()}/#/compare-runs?runs={_json(list(run_ids))}&experiments={_json([experiment_id])}"


def chart_page(run_id: str, experiment_id: str, metrics: Sequence[str]) -> str:
    """These metrics of one run in one chart, a line each, against the step."""
    keys = f"metric={_json(metrics[0])}&plot_metric_keys={_json(list(metrics))}"
    look = f"x_axis=step&y_axis_scale=linear&line_smoothness=1&show_point=true&plot_layout={_json({'autosize': True})}"
    nothing_hidden = f"deselected_curves={_json([])}&last_linear_y_axis_range={_json([])}"
    return f"{_ui()}/#/metric?runs={_json([run_id])}&experiments={_json([experiment_id])}&{keys}&{look}&{nothing_hidden}"


def _ui() -> str:
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    return uri.rstrip("/") if uri.startswith("http") else OWN


def _json(value: object) -> str:
    return quote(json.dumps(value, separators=(",", ":")))
