"""Curves of a training, and the plots of the study `decoder-nms`, hold the recorded values."""

import json
from pathlib import Path

import pytest
from PIL import Image

from detr_core.plots.curves import training_curves
from detr_core.plots.decoder_nms import Grid, decoder_nms_plots, finding, read_cells
from detr_core.studies.decoder_nms import write_cells
from tests.plots.stage_results import cells


def write_history(path: Path, records: list[dict[str, float]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def grid(folder: Path, ap: dict[float | None, list[float]]) -> Grid:
    write_cells(cells(ap), folder)
    return read_cells(folder / "cells.json")


def test_curves_hold_what_was_recorded_and_come_out_the_same_each_time(tmp_path: Path) -> None:
    records = [{"step": step, "train/loss": 1 / step, "val/AP": 0.1, "val/AP50": -1} for step in (1, 2, 3)]
    history = write_history(tmp_path / "history.jsonl", records)
    runs = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        files = training_curves(history, folder, "detection")
        assert [file.name for file in files] == [
            "detection_loss.svg", "detection_loss.png", "detection_validation.svg", "detection_validation.png",
        ]  # fmt: skip
        runs.append([file.read_bytes() for file in files])
    assert runs[0] == runs[1]
    assert b"Validation, percent" in runs[0][2]
    assert b"AP50" not in runs[0][2], "a figure of -1 was never measured"
    assert Image.open(tmp_path / "one" / "detection_loss.png").convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 0)


def test_a_single_measurement_makes_no_curve(tmp_path: Path) -> None:
    history = write_history(
        tmp_path / "history.jsonl", [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": 0.5, "val/AP": 0.2}]
    )
    assert [file.name for file in training_curves(history, tmp_path, "d")] == ["d_loss.svg", "d_loss.png"]


def test_a_line_for_each_nms(tmp_path: Path) -> None:
    write_cells(cells({0.5: [0.5, 0.6], None: [0.4, 0.6], 0.7: [0.5, 0.6]}), tmp_path)
    files = decoder_nms_plots(tmp_path / "cells.json", tmp_path)
    assert [file.stem for file in files[::2]] == ["decoder_nms_AP", "decoder_nms_AP50", "decoder_nms_gain"]
    plot = files[0].read_text()
    assert plot.index("no NMS") < plot.index("NMS 0.7") < plot.index("NMS 0.5")
    assert "no NMS" not in files[4].read_text()


def test_no_gain_without_a_row_to_compare_with(tmp_path: Path) -> None:
    write_cells(cells({0.7: [0.5, 0.6]}), tmp_path)
    assert {file.stem for file in decoder_nms_plots(tmp_path / "cells.json", tmp_path)} == {"decoder_nms_AP", "decoder_nms_AP50"}


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
def test_finding_says_what_the_metrics_say(tmp_path: Path, ap: dict[float | None, list[float]], expected: str) -> None:
    assert finding(grid(tmp_path, ap)) == expected
