"""This module builds the addresses of pages in MLflow's and Prefect's UI, for the terminal and the report.

Pages of a server that MLFLOW_TRACKING_URI names can always be opened. Pages of the project's own database can be opened only
while `make serve` runs, and `to_open` says so beside their addresses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from urllib.parse import quote

from flows.tracking.tracking_address import server

OWN = "http://127.0.0.1:5000"  # where `make serve` shows the runs of the project's own MLflow database
OWN_PREFECT = "http://127.0.0.1:4200"  # where `make serve` shows the runs of Prefect
SERVED = "DETR_MLFLOW_UI"  # the environment variable that tells the Prefect worker of `make serve` the address of the MLflow UI

_VIEW_NAME = "detr"
_COLUMNS = ("tags.`profile`", "metrics.`val/AP`", "metrics.`val/AP50`", "metrics.`val/PQ`", "metrics.`train/loss`")
# This tag of an experiment defines a view in MLflow's UI: a table of runs with the columns above.
VIEW = {f"mlflow.sharedViewState.{_VIEW_NAME}": json.dumps({"selectedColumns": _COLUMNS})}


def home() -> str:
    """Returns the address of the page of all experiments."""
    return f"{_ui()}/"


def run_page(run_id: str, experiment_id: str) -> str:
    """Returns the address of the page of one run."""
    return f"{_ui()}/#/experiments/{experiment_id}/runs/{run_id}"


def experiment_page(experiment_id: str) -> str:
    """Returns the address of the table of an experiment's runs, with the columns of VIEW."""
    return f"{_ui()}/#/experiments/{experiment_id}/runs?viewStateShareKey={_VIEW_NAME}"


def compare_page(run_ids: Sequence[str], experiment_id: str) -> str:
    """Returns the address of the page that compares these runs."""
    return f"{_ui()}/#/compare-runs?runs={_json(list(run_ids))}&experiments={_json([experiment_id])}"


def chart_page(run_id: str, experiment_id: str, metrics: Sequence[str]) -> str:
    """Returns the address of a chart of these metrics of one run by step, with one line for each metric."""
    keys = f"metric={_json(metrics[0])}&plot_metric_keys={_json(list(metrics))}"
    appearance = f"x_axis=step&y_axis_scale=linear&line_smoothness=1&show_point=true&plot_layout={_json({'autosize': True})}"
    visibility = f"deselected_curves={_json([])}&last_linear_y_axis_range={_json([])}"
    return f"{_ui()}/#/metric?runs={_json([run_id])}&experiments={_json([experiment_id])}&{keys}&{appearance}&{visibility}"


def flow_run_page(flow_run_id: str) -> str:
    """Returns the address of a flow run in Prefect's UI, on the server of `make serve`.

    That server uses the same database as the server that a stage starts for itself, so it shows the runs of both.
    """
    return f"{OWN_PREFECT}/runs/flow-run/{flow_run_id}"


def to_open(address: str) -> str:
    """Returns the address for a message, such as 'make serve, then http://...' if `make serve` must run to open the page."""
    needs_serve = address.startswith((f"{OWN}/", f"{OWN_PREFECT}/")) and SERVED not in os.environ
    return f"make serve, then {address}" if needs_serve and not address.startswith(f"{server()}/") else address


def stored(address: str) -> str:
    """Returns the address relative to the UI, because the UI may have another address when the stored address is read."""
    return address[address.index("#/") :]


def restored(address: str) -> str:
    """Returns the whole address of a page, on the present UI. address: from `stored`, or a whole address on any UI."""
    return f"{_ui()}/{address[address.index('#/') :]}"


def _ui() -> str:
    return server() or os.environ.get(SERVED) or OWN


def _json(value: object) -> str:
    return quote(json.dumps(value, separators=(",", ":")))
