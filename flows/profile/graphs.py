"""The copies of dvc.yaml: DVC runs a profile other than the default one by the copy in the profile's folder.

They are copies and not links, because DVC reads earlier commits from git, where it does not follow links.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from detr_core.atomic import write_text
from flows.profile import paths
from flows.profile.paths import Paths, relative


def graph_text() -> str:
    """Returns the text of dvc.yaml, which every copy has."""
    return (paths.ROOT / "dvc.yaml").read_text(encoding="utf-8")


def outputs(profile: Paths) -> list[Path]:
    """Returns the files and folders that the stages of dvc.yaml write for a profile, in the order of the stages."""
    stages = yaml.safe_load(graph_text())["stages"].values()
    return [paths.ROOT / next(iter(out)).replace("${profile}", profile.profile) for stage in stages for out in stage["outs"]]


def outdated_copies() -> list[Path]:
    """Returns the copies that differ from dvc.yaml, of all profiles, adopted ones included."""
    text = graph_text().encode()
    return [copy for copy in sorted(paths.PARAMS.glob("*/dvc.yaml")) if copy.read_bytes() != text]


def write_copies() -> list[Path]:
    """Writes the copies that differ from dvc.yaml again, each atomically, and returns them."""
    outdated = outdated_copies()
    for copy in outdated:
        write_text(copy, graph_text())
    return outdated


def outdated_message(profile: Paths) -> str | None:
    """Returns a message with the command to run if the profile's copy of dvc.yaml differs from dvc.yaml; None otherwise."""
    graph = profile.dvc_folder / "dvc.yaml"
    if not graph.is_file() or graph.read_bytes() == graph_text().encode():
        return None
    return f"{relative(graph)} differs from dvc.yaml, of which it is a copy; `python -m flows.graphs` writes it again"
