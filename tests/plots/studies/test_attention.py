"""The plots of the attention studies are drawn from files alone, and their sentences state the measured values."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr_core.plots.studies import decoder_attention, encoder_attention
from detr_core.plots.studies.decoder_attention import box_colors
from detr_core.plots.style import COLORS
from tests.plots.stage_results import dump

MAP = [[0.5, 0.25], [0.25, 0.0]]
REGIONS = ("own", "same_class", "others", "extremities", "interior", "outside")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Returns a folder with the results of both attention studies."""
    folder = tmp_path / "study"
    objects = [{"box": [0.5, 0.5, 0.4, 0.2], "category": "cat", "score": 0.9, "query": 3, "map": MAP}]
    points = [{"x": 0.25, "y": 0.5, "category": "cat", "map": MAP}]
    rows = [
        {"image_id": 7, "file": "image_7.png", "points": points, "objects": objects},
        {"image_id": 8, "file": "image_8.png", "points": [], "objects": []},
    ]
    dump(folder / "maps.json", rows)
    dump(folder / "metrics.json", {f"{r}/{part}": 0.25 for r in REGIONS for part in ("mass", "area", "times")})
    np.save(folder / "boxes.npy", np.random.default_rng(0).random((5, 24, 4), dtype=np.float32))
    for row in rows:
        Image.fromarray(np.full((30, 40, 3), 90, dtype=np.uint8)).save(folder / str(row["file"]))
    return folder


@pytest.mark.parametrize(
    ("draw", "names"),
    [
        (encoder_attention.plots, ["encoder_attention_maps", "encoder_attention_regions"]),
        (decoder_attention.plots, ["decoder_attention_maps", "decoder_attention_regions", "decoder_attention_queries"]),
    ],
)
def test_the_plots_need_only_files_and_are_reproducible(draw: object, names: list[str], study: Path, tmp_path: Path) -> None:
    assert callable(draw)
    runs = []
    for run in ("one", "two"):
        folder = tmp_path / run
        folder.mkdir()
        files = draw(study, folder)
        assert [file.name for file in files] == [f"{name}.{end}" for name in names for end in ("svg", "png")]
        assert sorted(folder.iterdir()) == sorted(files)
        runs.append([file.read_bytes() for file in files])
    assert runs[0] == runs[1]
    assert b"image 7" in runs[0][0]
    assert (b"image 8" in runs[0][0]) == ("decoder" in names[0]), "a row without points shows nothing"
    assert b"0.2 \xc3\x97 uniform" in runs[0][2]


def test_nothing_detected_makes_no_bars(study: Path, tmp_path: Path) -> None:
    dump(study / "metrics.json", {"detections": 0})
    assert {file.stem for file in decoder_attention.plots(study, tmp_path)} == {
        "decoder_attention_maps", "decoder_attention_queries",
    }  # fmt: skip


def test_as_many_queries_as_in_the_paper_are_shown(study: Path, tmp_path: Path) -> None:
    svg = decoder_attention.plots(study, tmp_path)[4].read_text()
    assert svg.count(">query ") == 20
    assert ">query 1<" in svg


def test_colours_tell_small_wide_and_tall_boxes_apart() -> None:
    colors = box_colors(np.array([0.0, 0.9, 0.4]), np.array([0.0, 0.4, 0.9]))
    expected = [[int(COLORS[i][k : k + 2], 16) for k in (1, 3, 5)] for i in (2, 4, 0)]
    assert np.abs(255 * colors - expected).max() < 1


def test_the_conclusion_about_the_encoder_follows_from_the_metrics() -> None:
    assert encoder_attention.conclusion({"own/times": 6.0, "same_class/times": 1.2}) == (
        "From an object's centre, its own mask gets 6.0 times the attention of a uniform distribution, the other objects of "
        "its class 1.2 times: instances are separated."
    )
    assert "hardly separated" in encoder_attention.conclusion({"own/times": 2.0, "same_class/times": 1.9})
    assert encoder_attention.conclusion({}) == ""


def test_the_conclusion_about_the_decoder_follows_from_the_metrics() -> None:
    assert decoder_attention.conclusion({"extremities/times": 4.0, "interior/times": 2.0}) == (
        "In the last decoder layer, attention along a detected object's box is 4.0 times that of a uniform distribution, and "
        "attention inside the box 2.0 times: attention is on the extremities."
    )
    assert "inside rather than" in decoder_attention.conclusion({"extremities/times": 1.0, "interior/times": 2.0})
    assert decoder_attention.conclusion({}) == ""
