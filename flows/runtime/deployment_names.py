"""This Prefect plugin lets `prefect deployment run` find a deployment by its name alone, such as `detr-ablations`.

Prefect's own command accepts only FLOW/DEPLOYMENT. Prefect calls `setup_environment` of the entry-point group `prefect.plugins`
when it is imported, before it reads its command line; pyproject.toml switches plugins on. Other commands, complete names, and
names of no deployment or of several deployments are not changed, and Prefect answers them. A deployment that an earlier version
of the project left behind under the same name does not count.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from prefect.plugins import HookContext, register_hook


@register_hook
async def setup_environment(*, ctx: HookContext) -> None:
    """Replaces the name in `prefect deployment run NAME` by `FLOW/NAME` where exactly one deployment has that name."""
    position = bare_name(sys.argv)
    if position is None or ctx.api_url is None:
        return
    # These imports take seconds, and no other command needs them.
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
    from prefect.exceptions import PrefectException

    from detr_core.redaction import without_credentials

    by_name = DeploymentFilter(name=DeploymentFilterName(any_=[sys.argv[position]]))
    try:
        async with get_client() as client:
            deployments = current(await client.read_deployments(deployment_filter=by_name))
            if len(deployments) == 1:
                flow = await client.read_flow(deployments[0].flow_id)
                sys.argv[position] = f"{flow.name}/{deployments[0].name}"
    except (httpx.HTTPError, PrefectException, RuntimeError):
        # Without this line Prefect would only say that the form of the name is wrong.
        print(f"no Prefect server answers at {without_credentials(ctx.api_url)}; `make serve` starts one", file=sys.stderr)


def current(deployments: list[Any]) -> list[Any]:
    """Returns the deployments whose code the prefect.yaml of this folder names; a single deployment is always returned."""
    file = Path("prefect.yaml")
    if len(deployments) < 2 or not file.is_file():
        return deployments
    import yaml

    entrypoints = {entry["entrypoint"] for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]}
    return [deployment for deployment in deployments if deployment.entrypoint in entrypoints]


def bare_name(arguments: list[str]) -> int | None:
    """Returns the position of a deployment's name without a flow in `prefect deployment run NAME`; None in other commands."""
    for start in range(1, len(arguments) - 1):
        if arguments[start] in ("deployment", "deployments") and arguments[start + 1] == "run":
            break
    else:
        return None
    for position in range(start + 2, len(arguments)):
        previous, argument = arguments[position - 1], arguments[position]
        value_of_option = previous.startswith("-") and "=" not in previous and previous != "--watch"
        if not argument.startswith("-") and not value_of_option:
            return None if "/" in argument else position
    return None
