"""The studies' tests are about what is trained and what is taken over, so the trainings themselves take place in this process."""

from __future__ import annotations

import shutil

import pytest

from flows.profile.paths import Paths
from tests.conftest import Trained, copy_data


@pytest.fixture(autouse=True)
def _trains_here(trains_here: None) -> None: ...


@pytest.fixture
def where(trained: Trained) -> Paths:
    """The tiny profile's data under another name, without any models."""
    paths = Paths("tiny-studies")
    shutil.rmtree(paths.runs, ignore_errors=True)
    copy_data(trained.paths, paths)
    return paths
