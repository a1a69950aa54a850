"""Reads a recorded run from MLflow, so that it can be repeated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows.tracking import (  # this comes before mlflow, because tracking sets MLflow's variables
    recorder,
    snapshot,
    tracking_address,
)
from flows.tracking.tracking_address import tracking_uri

import mlflow  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip

PARENT = "mlflow.parentRunId"

# The values of each metric by step. A metric of a child run has the name `NAME OF THE CHILD RUN: METRIC`.
Metrics = Mapping[str, Mapping[int, float]]


@dataclass(frozen=True)
class RecordedRun:
    """A recorded run.

    params, studies, patch: the profile's two files and the uncommitted changes that flows/tracking/snapshot.py has stored, None
    if the run has none; earlier versions of the project had the studies in the first file.
    results: the digest of each result file by its path.
    """

    run_id: str
    experiment_id: str
    status: str
    tags: Mapping[str, str]
    metrics: Metrics
    params: bytes | None
    patch: bytes | None
    results: Mapping[str, str]
    studies: bytes | None = None


def recorded(run_id: str) -> RecordedRun:
    """Reads the run of that id. Raises TrackingError if MLflow can't be reached or has no such run."""
    uri = tracking_uri()
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.is_file():  # otherwise MLflow would create the database
        raise recorder.TrackingError(
            f"MLflow at {tracking_address.public_uri()}: expected a database with runs, found none; set MLFLOW_TRACKING_URI if "
            "the runs are recorded elsewhere"
        )
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    try:
        run = client.get_run(run_id)
        children = client.search_runs([run.info.experiment_id], f"tags.`{PARENT}` = '{run_id}'", max_results=1000)
        metrics = _metrics(client, run_id, run.data.metrics)
        for child in children:
            child_metrics = _metrics(client, child.info.run_id, child.data.metrics)
            metrics |= {f"{child.info.run_name}: {name}": values for name, values in child_metrics.items()}
        with TemporaryDirectory() as folder:
            names = {Path(file.path).name for file in client.list_artifacts(run_id, snapshot.ORIGIN)}
            if names:
                client.download_artifacts(run_id, snapshot.ORIGIN, folder)
            content = {name: (Path(folder) / snapshot.ORIGIN / name).read_bytes() for name in names}
    except (MlflowException, OSError) as error:
        raise recorder.TrackingError(
            f"MLflow at {tracking_address.public_uri()}: run {run_id!r}: {recorder.reason(error)}"
        ) from None
    return RecordedRun(
        run_id,
        run.info.experiment_id,
        run.info.status,
        run.data.tags,
        metrics,
        content.get(snapshot.PARAMS),
        content.get(snapshot.PATCH),
        json.loads(content.get(snapshot.RESULTS, b"{}")),
        content.get(snapshot.STUDIES),
    )


def repetition(run: RecordedRun) -> str | None:
    """Returns the id of the latest repetition of `run`, which MLflow knows by the tag `rerun.of`; None without one."""
    query = f"tags.`{recorder.RERUN_OF}` = '{run.run_id}' AND tags.stage = '{run.tags['stage']}'"
    repetitions = mlflow.MlflowClient().search_runs([run.experiment_id], query, order_by=["attributes.start_time DESC"])
    return next((candidate.info.run_id for candidate in repetitions if PARENT not in candidate.data.tags), None)


def tag(run_id: str, name: str, value: str) -> None:
    """Sets a tag of a run that has ended."""
    mlflow.MlflowClient().set_tag(run_id, name, value)


def _metrics(client: Any, run_id: str, names: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Reads the values of these metrics by step, except for system metrics, which describe the machine and not the work."""
    return {
        name: {metric.step: metric.value for metric in client.get_metric_history(run_id, name)}
        for name in names
        if not name.startswith("system/")
    }
