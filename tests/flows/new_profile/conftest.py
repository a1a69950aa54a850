"""Fixtures that run `adopt`, the data stage and the check on a dataset folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adopting import Outcome, adopt_and_check


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the datasets that `tests/field.py` makes: FIELD/<case>/set."""
    folder = tmp_path_factory.mktemp("field")
    subprocess.run([sys.executable, str(Path(__file__).parents[2] / "field.py"), str(folder)], check=True)
    return folder


@pytest.fixture
def outcome(params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Returns a function that runs `adopt`, the data stage and the check on a folder.

    The check writes no page, because drawing it takes seconds.
    """
    monkeypatch.setattr("detr_core.plots.data_check.write_data_check", lambda *_: None)
    number = iter(range(100))
    return lambda folder, mode="strict": adopt_and_check(
        folder, f"{tmp_path.name.replace('_', '-').strip('-')}{next(number)}", params, mode
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns an empty folder for a dataset."""
    (tmp_path / "set").mkdir()
    return tmp_path / "set"
