"""Publishes the metrics of a finished flow run, and links to its results, in Prefect's UI."""

from __future__ import annotations

import os
from collections.abc import Mapping

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from detr_core.redaction import without_credentials
from flows.runtime.server import came_back
from flows.tracking import ui_addresses


def publish(stage: str, profile: str, metrics: Mapping[str, float], links: Mapping[str, str]) -> None:
    """Adds a Markdown artifact with the key STAGE-PROFILE to the flow run: a list of `links` and a table of metrics.

    The work of the flow is complete by then, so if no Prefect server answers, this is only a warning.
    """
    where = [f"- {text}: {_as_markdown(address)}" for text, address in links.items()]
    table = ["| metric | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in metrics.items())]
    text = without_credentials("\n".join([f"# {stage}, profile {profile}", *where, "", *(table if metrics else [])]))
    url = os.environ.get("PREFECT_API_URL")
    if url is not None and not came_back(url):
        warning = "the metrics of this run are not shown in Prefect: no server answers at %s"
        get_run_logger().warning(warning, without_credentials(url))
        return
    try:
        create_markdown_artifact(text, key=f"{stage}-{profile}".lower().replace("_", "-"))
    except httpx.HTTPError as error:
        get_run_logger().warning("the metrics of this run are not shown in Prefect: %s", without_credentials(repr(error)))


def _as_markdown(address: str) -> str:
    """Returns Markdown for an address, with the command `make serve` before it if the page needs that; a path as code."""
    before, http, rest = ui_addresses.to_open(address).partition("http")
    command = f"`{before.removesuffix(', then ')}`, then " if before and http else ""
    return f"{command}<{http}{rest}>" if http else f"`{before}`"
