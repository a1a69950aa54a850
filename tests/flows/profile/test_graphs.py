"""The copies of dvc.yaml, and the warning of a stage whose copy is out of date."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.profile import graphs, paths
from flows.profile.paths import Paths


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a copy that is up to date and one that is not."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    for name, text in {"dvc.yaml": "new", "params/cells/dvc.yaml": "old", "params/smoke/dvc.yaml": "new"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_only_outdated_copies_are_written_again(project: Path) -> None:
    copy = project / "params/cells/dvc.yaml"
    assert graphs.write_copies() == [copy]
    assert copy.read_text() == "new"
    assert graphs.outdated_copies() == graphs.write_copies() == []


def test_the_message_names_the_copy_and_the_command(project: Path) -> None:
    said = "params/cells/dvc.yaml differs from dvc.yaml, of which it is a copy; `python -m flows.graphs` writes it again"
    assert graphs.outdated_message(Paths("cells")) == said
    for profile in ("smoke", "demo", "without-a-folder"):
        assert graphs.outdated_message(Paths(profile)) is None
