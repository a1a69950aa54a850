from pathlib import Path

import pytest

from tests.plots.stage_results import Results, write_results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return write_results(tmp_path)
