"""The plots of a training study show each seed, the curves and the published rows."""

from pathlib import Path

from detr_core.evaluate.average_precision import Difference
from detr_core.plots.study import errors_table, published, study_plots, study_table, study_texts
from detr_core.studies.comparison import Run, StudyTable, write_table
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


def test_curves_of_panoptic_quality_are_drawn_for_the_variants_that_have_it(tmp_path: Path) -> None:
    runs = [
        Run("fpn", 0, {}, {}, "finished", None, {"val/AP": 0.4}, quality_curve=[(1.0, 0.2), (2.0, 0.4)]),
        Run("mask head", 0, {}, {}, "finished", None, {"val/AP": 0.4}, quality_curve=[(3.0, 0.5)]),
        Run("boxes", 0, {}, {}, "finished", None, {"val/AP": 0.4}),
    ]
    table = write_table(StudyTable("panoptic", "tiny", "Table 5", "fpn", runs), tmp_path)
    names = [file.name for file in study_plots(table, tmp_path)]
    assert "panoptic_quality_curves.svg" in names
    assert "panoptic_curves.svg" not in names
    picture = (tmp_path / "panoptic_quality_curves.svg").read_text()
    assert "PQ during training, percent" in picture
    assert "fpn" in picture
    assert "mask head" in picture
    assert "boxes" not in picture


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
        "A difference from the base has a 95% bootstrap interval over the validation images, averaged over seeds. "
        "A multiply-add counts as one FLOP; GFLOPs and images/s are means over the first 100 validation images, on "
        "M, 1 thread; the GFLOPs of one size are those of an image of 96 x 128 pixels.",
    ]


def test_a_study_of_mask_heads_has_the_differences_of_both_metrics(tmp_path: Path) -> None:
    differences = {"AP": Difference(0.0, -0.01, 0.01), "PQ": Difference(-0.02, -0.03, -0.01)}
    runs = [
        Run("maps", 0, {}, {}, "finished", metrics={"val/AP": 0.2, "val/PQ": 0.52}),
        Run("none", 0, {}, {}, "finished", metrics={"val/AP": 0.2, "val/PQ": 0.5}, differences=differences),
        Run("chance", 0, {}, {}, "finished", metrics={"val/AP": 0.2, "val/PQ": 0.51},
            differences=differences | {"PQ": Difference(-0.01, -0.03, 0.01)}),
    ]  # fmt: skip
    file = write_table(StudyTable("my own", "tiny", "Table 5", "maps", runs), tmp_path)
    table = study_table(file)
    assert table.columns[:8] == ("AP", "PQ", "AP minus base", "from", "to", "PQ minus base", "from", "to")
    assert table.rows[1][1][:8] == (20.0, 50.0, 0.0, -1.0, 1.0, -2.0, -3.0, -1.0)
    assert study_texts(file, "")[0] == (
        "PQ is highest with 'maps' (52.0) and lowest with 'none' (50.0); against 'maps': 'none' −2.0; 'chance' −1.0, which may "
        "be chance."
    )


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


def test_the_kinds_of_errors_of_the_variants_stand_side_by_side(tmp_path: Path) -> None:
    gains = {"Cls": 0.01, "Loc": 0.1, "Both": 0.0, "Dupe": 0.04, "Bkg": 0.0, "Miss": 0.05}
    runs = [
        Run("few", 0, {}, {}, "finished", metrics={"val/AP": 0.2}, errors=gains),
        Run("few", 1, {}, {}, "finished", metrics={"val/AP": 0.2}, errors=gains | {"Loc": 0.2}),
        Run("many", 0, {}, {}, "finished", metrics={"val/AP": 0.2}, errors=gains | {"Dupe": 0.0}),
    ]
    table = errors_table(write_table(StudyTable("my own", "tiny", "none", "few", runs), tmp_path))
    assert table is not None
    assert table.columns == ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "seeds")
    assert [(name, tuple(round(value, 6) for value in row if value is not None)) for name, row in table.rows] == [
        ("few (base)", (1.0, 15.0, 0.0, 4.0, 0.0, 5.0, 2)),
        ("many", (1.0, 10.0, 0.0, 0.0, 0.0, 5.0, 1)),
    ]
    assert errors_table(write_table(TABLE, tmp_path)) is None, "a table of an earlier version has no errors"


def test_a_metric_that_is_published_is_shown_beside_it(tmp_path: Path) -> None:
    metrics = {"val/AP": 0.2, "val/AP75": 0.15, "val/SQ": 0.7}
    columns = {
        name: study_table(
            write_table(StudyTable(name, "tiny", "none", "a", [Run("a", 0, {}, {}, "finished", metrics=metrics)]), tmp_path)
        ).columns
        for name in ("baselines", "panoptic", "losses")
    }
    assert columns["baselines"][:2] == ("AP", "AP75")
    assert columns["panoptic"][:2] == ("AP", "SQ")
    assert columns["losses"][:1] == ("AP",)
    assert columns["losses"][1] == "AP minus base"
