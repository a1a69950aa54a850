"""A fixture with the results of all stages of a small profile, for the tests of the plots."""

from pathlib import Path

import pytest

from tests.plots.stage_results import Results, write_results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Returns the results of all stages of a small profile."""
    return write_results(tmp_path)
