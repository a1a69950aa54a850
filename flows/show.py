"""What a flow run shows in Prefect's UI when it is done: its figures, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.artifacts import create_markdown_artifact

from detr_core.redaction import without_credentials
from flows import pages


def publish(stage: str, profile: str, figures: Mapping[str, float], links: Mapping[str, str]) -> None:
    """A Markdown artifact of the flow run, by the key STAGE-PROFILE: a list of `links`, then a table of `figures`."""
    where = [f"- {text}: {_shown(address)}" for text, address in links.items()]
    table = ["| figure | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in figures.items())]
    lines = [f"# {stage}, profile {profile}", *where, "", *(table if figures else [])]
    create_markdown_artifact(without_credentials("\n".join(lines)), key=f"{stage}-{profile}".lower().replace("_", "-"))


def _shown(address: str) -> str:
    """A link where the address answers without more, or after `make serve`; a path as it is."""
    before, http, rest = pages.to_open(address).partition("http")
    command = f"`{before.removesuffix(', then ')}`, then " if before and http else ""
    return f"{command}<{http}{rest}>" if http else f"`{before}`"
