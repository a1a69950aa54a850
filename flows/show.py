"""What a flow run shows in Prefect's UI when it is done: its figures, and where to look next."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.artifacts import create_markdown_artifact

from detr_core.redaction import without_credentials


def publish(stage: str, profile: str, figures: Mapping[str, float], links: Mapping[str, str]) -> None:
    """A Markdown artifact of the flow run, by the key STAGE-PROFILE: a list of `links`, then a table of `figures`."""
    where = [f"- [{text}]({address})" for text, address in links.items()]
    table = ["| figure | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in figures.items())]
    lines = [f"# {stage}, profile {profile}", *where, "", *(table if figures else [])]
    create_markdown_artifact(without_credentials("\n".join(lines)), key=f"{stage}-{profile}".lower().replace("_", "-"))
