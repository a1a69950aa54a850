"""A project of its own for tests that write profiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows import data
from flows.profile import paths, settings
from flows.profile.paths import PARAMS


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a project with a copy of the profiles of this project."""
    root = tmp_path / "project"
    shutil.copytree(PARAMS, root / "params")
    shutil.copy(PARAMS.parent / "dvc.yaml", root)
    for module in (paths, settings):
        monkeypatch.setattr(module, "PARAMS", root / "params")
    for module in (data, paths):
        monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(paths, "MAIN", root)
    for name in ("STATE", "SHARED"):
        monkeypatch.setattr(paths, name, root / ".state")
    return root
