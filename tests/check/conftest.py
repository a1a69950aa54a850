"""A fixture that writes a small dataset without faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check.datasets import write_whole


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Returns the folder of a small dataset without faults."""
    return write_whole(tmp_path / "data")
