"""Addresses of pages in MLflow's and Prefect's UI, for the terminal and the report.

The server that MLFLOW_TRACKING_URI names always answers at its pages. Pages of the project's own record answer only while
`make serve` runs, and `to_open` says so beside their addresses.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from urllib.parse import quote

from flows.tracking_address import server

OWN = "http://127.0.0.1:5000"  # where `make serve` shows the project's own record
OWN_PREFECT = "http://127.0.0.1:4200"  # and Prefect's runs
SERVED = "DETR_MLFLOW_UI"  # the environment's variable by which `make serve` tells its worker where it shows the record

_VIEW_NAME = "detr"
_COLUMNS = ("tags.`profile`", "metrics.`val/AP`", "metrics.`val/AP50`", "metrics.`val/PQ`", "metrics.`train/loss`")
# The tag of an experiment by which MLflow's UI knows a view of its runs: what each run reached, beside its name.
VIEW = {f"mlflow.sharedViewState.{_VIEW_NAME}": json.dumps({"selectedColumns": _COLUMNS})}


def home() -> str:
    """All experiments."""
    return f"{_ui()}/"


def run_page(run_id: str, experiment_id: str) -> str:
    """One run."""
    return f"{_ui()}/#/experiments/{experiment_id}/runs/{run_id}"


def experiment_page(experiment_id: str) -> str:
    """All runs of an experiment, in the columns of VIEW."""
    return f"{_ui()}/#/experiments/{experiment_id}/runs?viewStateShareKey={_VIEW_NAME}"


def compare_page(run_ids: Sequence[str], experiment_id: str) -> str:
    """These runs compared, all of them selected."""
    return f"{_ui()}/#/compare-runs?runs={_json(list(run_ids))}&experiments={_json([experiment_id])}"


def chart_page(run_id: str, experiment_id: str, metrics: Sequence[str]) -> str:
    """These metrics of one run in one chart, a line each, against the step."""
    keys = f"metric={_json(metrics[0])}&plot_metric_keys={_json(list(metrics))}"
    look = f"x_axis=step&y_axis_scale=linear&line_smoothness=1&show_point=true&plot_layout={_json({'autosize': True})}"
    nothing_hidden = f"deselected_curves={_json([])}&last_linear_y_axis_range={_json([])}"
    return f"{_ui()}/#/metric?runs={_json([run_id])}&experiments={_json([experiment_id])}&{keys}&{look}&{nothing_hidden}"


def flow_run_page(flow_run_id: str) -> str:
    """One flow run in Prefect's UI, on the server of `make serve`, which has the runs of the stages' own servers too."""
    return f"{OWN_PREFECT}/runs/flow-run/{flow_run_id}"


def to_open(address: str) -> str:
    """The address for a reader, with what must be running before it answers: 'make serve, then http://...'."""
    needs_serve = address.startswith((f"{OWN}/", f"{OWN_PREFECT}/")) and SERVED not in os.environ
    return f"make serve, then {address}" if needs_serve and not address.startswith(f"{server()}/") else address


def stored(address: str) -> str:
    """The address as the record keeps it: relative to the UI, wherever that is when the record is read."""
    return address[address.index("#/") :]


def restored(address: str) -> str:
    """The whole address of a page that `stored` has made relative; one that is whole is of a UI that may be no more."""
    return f"{_ui()}/{address[address.index('#/') :]}"


def _ui() -> str:
    return server() or os.environ.get(SERVED) or OWN


def _json(value: object) -> str:
    return quote(json.dumps(value, separators=(",", ":")))
