"""The studies' tests are about what is trained and what is taken over, so the trainings themselves take place in this process."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _trains_here(trains_here: None) -> None: ...
