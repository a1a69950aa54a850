from pathlib import Path

import pytest

from tests.figures.stage_results import Results, write_results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return write_results(tmp_path)
