"""The copies of dvc.yaml, and the warning of a stage whose copy is out of date."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from detr_core.directories import ForeignFileError
from flows.profile import graphs, paths
from flows.profile.paths import Paths


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a project whose dvc.yaml was committed twice, with a copy of each version, and a folder of somebody's own."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    files = {"cells": "old", "smoke": "new", "notes": "mine"}
    for name, text in files.items():
        (tmp_path / "params" / name).mkdir(parents=True)
        (tmp_path / "params" / name / "dvc.yaml").write_text(text)
    for name in ("demo", "cells", "smoke"):
        (tmp_path / "params" / f"{name}.yaml").write_text("")
    git(tmp_path, "init", "-q")
    for text in ("old", "new"):
        (tmp_path / "dvc.yaml").write_text(text)
        git(tmp_path, "add", "dvc.yaml")
        git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", text)
    return tmp_path


def git(root: Path, *arguments: str) -> None:
    """Runs git in a folder."""
    subprocess.run(["git", "-C", str(root), *arguments], check=True)


def test_only_outdated_copies_are_written_again(project: Path) -> None:
    copy = project / "params/cells/dvc.yaml"
    assert graphs.outdated_copies() == [copy]
    assert graphs.write_copies() == [copy]
    assert copy.read_text() == "new"
    assert graphs.outdated_copies() == graphs.write_copies() == []
    assert (project / "params/notes/dvc.yaml").read_text() == "mine", "there is no profile of this name"


def test_a_copy_that_was_deleted_is_written_again(project: Path) -> None:
    copy = project / "params/smoke/dvc.yaml"
    copy.with_name("profile.yaml").write_text("profile: smoke\n")
    graphs.write_copies()
    copy.unlink()
    assert graphs.outdated_copies() == graphs.write_copies() == [copy]
    assert copy.read_text() == "new"


@pytest.mark.parametrize("spoil", ["edited", "link", "dangling link", "folder"])
def test_a_file_that_somebody_else_wrote_stays(project: Path, spoil: str) -> None:
    (project / "params/cells/dvc.yaml").write_text("old")
    own = project / "params/smoke/dvc.yaml"
    own.unlink()
    (project / "mine.yaml").write_text("mine")
    if spoil == "edited":
        own.write_text("new\nmine: 1\n")
    elif spoil == "folder":
        own.mkdir()
    else:
        own.symlink_to(project / ("mine.yaml" if spoil == "link" else "nothing.yaml"))
    with pytest.raises(ForeignFileError, match=r"params/smoke/dvc\.yaml: expected a copy of dvc\.yaml.*found other content"):
        graphs.write_copies()
    assert (project / "params/cells/dvc.yaml").read_text() == "old", "nothing was changed"
    assert (project / "mine.yaml").read_text() == "mine"
    assert own.is_symlink() or own.exists()


def test_the_message_names_the_copy_and_the_command(project: Path) -> None:
    message = "params/cells/dvc.yaml is an outdated copy of dvc.yaml; `python -m flows.graphs` writes it again"
    assert graphs.outdated_message(Paths("cells")) == message
    for profile in ("smoke", "demo", "without-a-folder"):
        assert graphs.outdated_message(Paths(profile)) is None
