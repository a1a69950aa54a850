"""The plots of the study `decoder-nms` are drawn from files alone, and its sentence states the measured values."""

from pathlib import Path

import pytest

from detr_core.plots.studies.decoder_nms import Grid, conclusion, plots, read_cells
from detr_core.studies.measurements.decoder_nms import write_cells
from tests.plots.stage_results import cells


def grid(folder: Path, ap: dict[float | None, list[float]]) -> Grid:
    write_cells(cells(ap), folder)
    return read_cells(folder / "cells.json")


def test_the_plots_have_a_line_for_each_nms(tmp_path: Path) -> None:
    write_cells(cells({0.5: [0.5, 0.6], None: [0.4, 0.6], 0.7: [0.5, 0.6]}), tmp_path)
    files = plots(tmp_path, tmp_path)
    assert [file.stem for file in files[::2]] == ["decoder_nms_AP", "decoder_nms_AP50", "decoder_nms_gain"]
    plot = files[0].read_text()
    assert plot.index("no NMS") < plot.index("NMS 0.7") < plot.index("NMS 0.5")
    assert "no NMS" not in files[4].read_text()


def test_without_a_row_to_compare_with_no_gain_is_drawn(tmp_path: Path) -> None:
    write_cells(cells({0.7: [0.5, 0.6]}), tmp_path)
    assert {file.stem for file in plots(tmp_path, tmp_path)} == {"decoder_nms_AP", "decoder_nms_AP50"}


@pytest.mark.parametrize(
    ("ap", "expected"),
    [
        (
            {None: [0.524, 0.544, 0.555], 0.5: [0.5, 0.5, 0.5], 0.7: [0.532, 0.550, 0.557]},
            "Without NMS, AP rises from 52.4 after decoder layer 1 to 55.5 after layer 3 (+3.1); NMS 0.7 changes it by +0.8 "
            "after layer 1 and by +0.2 after layer 3: the gain by NMS shrinks with depth.",
        ),
        (
            {None: [0.30, 0.28], 0.7: [0.29, 0.28]},
            "Without NMS, AP falls from 30.0 after decoder layer 1 to 28.0 after layer 2 (−2.0); NMS 0.7 changes it by −1.0 "
            "after layer 1 and by +0.0 after layer 2: the gain by NMS does not shrink with depth.",
        ),
        ({None: [0.3, 0.3]}, "Without NMS, AP goes from 30.0 after decoder layer 1 to 30.0 after layer 2 (+0.0)."),
        ({None: [0.3]}, ""),
        ({0.7: [0.3, 0.4]}, ""),
    ],
)  # fmt: skip
def test_the_conclusion_follows_from_the_metrics(tmp_path: Path, ap: dict[float | None, list[float]], expected: str) -> None:
    assert conclusion(grid(tmp_path, ap)) == expected
