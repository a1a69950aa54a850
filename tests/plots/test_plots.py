"""Curves of a training, and the plots of the study `decoder-nms`, hold the recorded values."""

import json
from pathlib import Path

from PIL import Image

from detr_core.plots.curves import training_curves


def write_history(path: Path, records: list[dict[str, float]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_curves_show_the_history_and_are_reproducible(tmp_path: Path) -> None:
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
