"""Marks runs in MLflow and Prefect whose process ended without recording the end, as after kill -9 or a power cut.

A run names its process: in MLflow by the tags `process.host`, `process.pid`, `process.started` and `process` (the identity), in
Prefect by `host:NAME` and `process:IDENTITY`. Every command marks, at its start, the running runs of this machine whose
process has ended. Runs of other machines, and runs that do not name their process, are not changed.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from flows.runtime import processes

if TYPE_CHECKING:  # prefect takes seconds to import
    from prefect import Flow, State
    from prefect.client.schemas.objects import FlowRun

ENDED = "the process of this run ended without recording it: it was killed, or the machine was switched off"
MANY = 200  # at most this many running runs are looked at; fewer run at the same time
PREFIX = "process:"  # the Prefect tag with the identity begins with this
log = logging.getLogger(__name__)


def mark_in_mlflow(client: Any) -> None:
    """Marks the running runs of this machine whose process has ended as KILLED. client: an MlflowClient."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    query = f"attributes.status = 'RUNNING' and tags.process LIKE '{processes.machine()}-%'"
    for run in client.search_runs(experiments, query, max_results=MANY) if experiments else []:
        if processes.lives(run.data.tags["process"]) is False:
            client.set_tag(run.info.run_id, "error", ENDED)
            client.set_terminated(run.info.run_id, "KILLED")


def prefect_tags() -> list[str]:
    """Returns the tags that this process gives to its Prefect flow runs."""
    return [f"host:{socket.gethostname()}", f"{PREFIX}{processes.identity()}"]


def tag_flow_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Gives the tags of `prefect_tags` to a flow run that a Prefect worker has begun; it is a flow's hook `on_running`."""
    from prefect.client.orchestration import get_client

    if not any(tag.startswith(PREFIX) for tag in flow_run.tags):
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, tags=[*flow_run.tags, *prefect_tags()])


def mark_in_prefect(url: str) -> None:
    """Marks the flow runs of this machine whose process has ended, and their task runs, as CRASHED. url: the server's address.

    If the server does not answer any more, that is only logged, because the work does not depend on it.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter
    from prefect.exceptions import PrefectException
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Crashed

    running: dict[str, Any] = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
    try:
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            runs = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(running), limit=MANY)
            dead = [run.id for run in runs if any(_is_dead(tag) for tag in run.tags)]
            # A killed flow may have recorded its own end, but not yet the ends of its tasks.
            tasks = client.read_task_runs(task_run_filter=TaskRunFilter.model_validate(running), limit=MANY)
            flow_run_ids = [task.flow_run_id for task in tasks if task.flow_run_id is not None]
            flows = (
                client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=flow_run_ids)))
                if flow_run_ids
                else []
            )
            ended = {run.id for run in flows if any(_is_dead(tag) for tag in run.tags)}
            for task in (task for task in tasks if task.flow_run_id in ended):
                client.set_task_run_state(task.id, Crashed(message=ENDED), force=True)
            for run_id in dead:
                client.set_flow_run_state(run_id, Crashed(message=ENDED), force=True)
    except (httpx.HTTPError, PrefectException) as error:
        log.warning("runs in Prefect whose process has ended could not be marked: %s", error)


def _is_dead(tag: str) -> bool:
    return tag.startswith(PREFIX) and processes.lives(tag.removeprefix(PREFIX)) is False
