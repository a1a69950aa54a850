"""What a flow run shows in Prefect's UI when it is done: its figures, and where to look next."""

from __future__ import annotations

import os
from collections.abc import Mapping

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.server import came_back


def publish(stage: str, profile: str, figures: Mapping[str, float], links: Mapping[str, str]) -> None:
    """A Markdown artifact of the flow run, by the key STAGE-PROFILE: a list of `links`, then a table of `figures`.

    The work is done by then: where no Prefect server answers, that is a warning.
    """
    where = [f"- [{text}]({address})" for text, address in links.items()]
    table = ["| figure | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in figures.items())]
    lines = [f"# {stage}, profile {profile}", *where, "", *(table if figures else [])]
    url = os.environ.get("PREFECT_API_URL")
    if url is not None and not came_back(url):
        get_run_logger().warning("the figures of this run are not shown in Prefect: no server answers at %s", url)
        return
    try:
        create_markdown_artifact("\n".join(lines), key=f"{stage}-{profile}".lower().replace("_", "-"))
    except httpx.HTTPError as error:
        get_run_logger().warning("the figures of this run are not shown in Prefect: %r", error)
