"""Writes the copies of dvc.yaml: DVC runs a profile other than the default one from the copy in the profile's folder.

They are copies and not links, because DVC reads earlier commits from git, where it does not follow links.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import yaml

from detr_core.atomic import write_text
from detr_core.directories import ForeignFileError
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
    return [copy for copy in _copies() if not copy.is_file() or copy.read_bytes() != text]


def write_copies() -> list[Path]:
    """Writes the copies that differ from dvc.yaml again, each atomically, and returns them.

    Raises ForeignFileError, and writes nothing, if one of them is a link or a folder, or has a content that no committed version
    of dvc.yaml had, which means that a user has edited it.
    """
    outdated = outdated_copies()
    committed = _committed_versions() if outdated else frozenset()
    for copy in outdated:
        if not copy.is_symlink() and not copy.exists():
            continue  # nothing is replaced
        if copy.is_symlink() or not copy.is_file() or _git_blob(copy.read_bytes()) not in committed:
            raise ForeignFileError(
                f"{relative(copy)}: expected a copy of dvc.yaml in its present or an earlier version, found other content, "
                "a link or a folder; nothing was changed; move it elsewhere, or delete it if you don't need it, and try again"
            )
    for copy in outdated:
        write_text(copy, graph_text())
    return outdated


def _copies() -> list[Path]:
    """Returns the copies of the profiles, including links and folders in their place, and missing ones.

    A copy is missing if the profile's folder has a profile.yaml, which only a copy reads. Folders without a profile are ignored.
    """
    copies = [paths.PARAMS / file.stem / "dvc.yaml" for file in sorted(paths.PARAMS.glob("*.yaml"))]
    return [copy for copy in copies if copy.is_symlink() or copy.exists() or copy.with_name("profile.yaml").is_file()]


def _committed_versions() -> frozenset[str]:
    """Returns the git blob hashes of dvc.yaml in all commits; an empty set outside of a git repository."""
    command = ["git", "-C", str(paths.ROOT), "log", "--all", "--format=", "--raw", "--no-abbrev", "--", "dvc.yaml"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return frozenset()
    return frozenset(name for line in lines for name in line.split()[2:4])


def _git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def outdated_message(profile: Paths) -> str | None:
    """Returns a message with the command to run if the profile's copy of dvc.yaml is outdated; None otherwise."""
    graph = profile.dvc_folder / "dvc.yaml"
    if not graph.is_file() or graph.read_bytes() == graph_text().encode():
        return None
    return f"{relative(graph)} is an outdated copy of dvc.yaml; `python -m flows.graphs` writes it again"
