"""Table 5 from the figures of evaluations."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from detr_core.config import ConfigError
from detr_core.figures.panoptic_table import finding, panoptic_table, panoptic_table_figure, read_rows
from detr_core.studies.panoptic import COLUMNS, panoptic_rows, write_panoptic

PUBLISHED = {"source": "the paper", "rows": [{"model": "DETR", "PQ": 43.4, "mask/AP": 31.1}]}


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, Path]:
    """Evaluations of two runs; the second one's data have no stuff and no masks of instances."""
    (tmp_path / "maps.json").write_text(json.dumps({f"val/{name}": i / 10 for i, name in enumerate(COLUMNS)} | {"val/AP": 0.9}))
    without = {f"val/{name}": 0.25 for name in COLUMNS if name != "mask/AP"} | {"val/PQ_stuff": -1}
    (tmp_path / "none.json").write_text(json.dumps(without))
    return {"maps": tmp_path / "maps.json", "no maps": tmp_path / "none.json"}


def test_rows(metrics: dict[str, Path], tmp_path: Path) -> None:
    rows = panoptic_rows(metrics)
    assert [row.name for row in rows] == ["maps", "no maps"]
    assert list(rows[0].figures.values()) == [i / 10 for i in range(10)]
    assert (rows[1].figures["PQ_stuff"], rows[1].figures["mask/AP"], rows[1].figures["SQ"]) == (None, None, 0.25)
    write_panoptic(rows, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["maps/val/SQ"] == 0.1
    assert [row["PQ_stuff"] for row in csv.DictReader((tmp_path / "table.csv").open())] == ["0.6", ""]


def test_a_run_without_panoptic_figures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"val/AP": 0.5}))
    with pytest.raises(ConfigError, match=r"metrics\.json: val/PQ: expected panoptic quality of 'maps', found none"):
        panoptic_rows({"maps": tmp_path / "metrics.json"})


def test_table_and_figure(metrics: dict[str, Path], tmp_path: Path) -> None:
    write_panoptic(panoptic_rows(metrics), tmp_path)
    rows = read_rows(tmp_path / "table.json")
    table = panoptic_table(rows, PUBLISHED)
    assert table.columns[0] == "PQ"
    assert table.columns[-1] == "mask AP"
    assert table.rows[1][1][0] == 25
    assert table.rows[1][1][6] is None
    assert table.published[0] == ("DETR", (43.4, *[None] * 8, 31.1))
    svg, png = panoptic_table_figure(tmp_path / "table.json", tmp_path)
    assert png.is_file()
    assert svg.read_text().count(">25.0<") == 2, "no bar for what was not measured"
    assert finding(rows) == "PQ is highest for no maps, 25.0; maps 0.0."
    assert finding(rows[:1]) == ""
