"""The plots of a training study show each seed, the curves and the published rows."""

from pathlib import Path

from detr_core.plots.study import published, study_plots, study_table, study_texts
from detr_core.studies.comparison import StudyTable, write_table
from tests.studies.test_comparison import TABLE


def test_each_seed_the_curves_and_the_published_rows_are_drawn_apart_and_the_same_each_time(tmp_path: Path) -> None:
    table = write_table(TABLE, tmp_path)
    pictures = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = study_plots(table, tmp_path / name)
        assert [file.name for file in files[::2]] == [
            "encoder-depth_measured.svg", "encoder-depth_curves.svg", "encoder-depth_published.svg",
        ]  # fmt: skip
        pictures.append([file.read_bytes() for file in files])
    assert pictures[0] == pictures[1]
    measured, _, theirs = (file.read_text() for file in files[::2])
    assert "measured, profile tiny" in measured
    assert "32.0" in measured
    assert "12 layers" not in measured
    assert "12 layers" in theirs


def test_measured_stands_beside_published(tmp_path: Path) -> None:
    table = study_table(write_table(TABLE, tmp_path))
    assert table.columns == (
        "AP",
        "AP minus base",
        "from",
        "to",
        "M parameters",
        "GFLOPs",
        "GFLOPs, one size",
        "images/s",
        "seeds",
    )
    rounded = [(name, tuple(value if value is None else round(value, 6) for value in row)) for name, row in table.rows]
    assert rounded == [
        ("0", (32.0, -9.0, -11.0, -7.0, 1.5, 0.25, 0.24, 90.0, 2)),
        ("1 (base)", (41.0, None, None, None, 1.5, 0.25, 0.24, 90.0, 2)),
    ]
    assert table.published[3] == ("12 layers", (41.6, None, None, None, 49.2, 95, None, 20, None))
    assert "table 2" in table.source


def test_the_sentence_says_what_the_metrics_say_and_what_is_missing(tmp_path: Path) -> None:
    assert study_texts(write_table(TABLE, tmp_path), "make it") == [
        "AP is highest with '1' (41.0) and lowest with '0' (32.0); against '1': '0' −9.0.",
        "Published (Table 2), on COCO: AP from 36.7 (0 layers) to 41.6 (12 layers).",
        "The table lacks these runs: 2, seed 0 (out of luck). This command runs them: make it",
        "The metrics are those of the evaluation after the last epoch.",
        "The difference from the base's AP has a 95% bootstrap interval over the validation images, averaged over seeds. "
        "A multiply-add counts as one FLOP; GFLOPs and images/s are means over the first 100 validation images, on "
        "M, 1 thread; the GFLOPs of one size are those of an image of 96 x 128 pixels.",
    ]


def test_a_study_that_nobody_published_and_nothing_finished_has_no_picture(tmp_path: Path) -> None:
    table = write_table(StudyTable("my own", "tiny", "none", "1", TABLE.runs[4:]), tmp_path)
    assert study_plots(table, tmp_path) == []
    assert study_table(table).rows == []
    assert study_texts(table, "") == ["The table lacks these runs: 2, seed 0 (out of luck)."]


def test_every_tables_rows_are_in_the_one_file_with_their_source() -> None:
    assert [row["AP"] for row in published("encoder-depth")["rows"]] == [36.7, 40.1, 40.6, 41.6]
    assert [(row["model"], row["AP"]) for row in published("schedule")["rows"]] == [("300 epochs", 40.6), ("500 epochs", 42.0)]
    assert [row["model"] for row in published("backbones")["rows"]] == ["DETR", "DETR-DC5", "DETR-R101", "DETR-DC5-R101"]
    for study in ("encoder-depth", "positions", "losses", "feed-forward", "schedule", "backbones", "baselines", "panoptic"):
        assert "2005.12872" in published(study)["source"]
    assert published("no such study") == {"source": "", "rows": []}
