"""The table of a training study holds its runs, and differences come with intervals."""

import json
from pathlib import Path

import pytest

from detr_core.evaluate.average_precision import Difference, bootstrap_differences, coco_ap
from detr_core.evaluate.metric_names import METRICS
from detr_core.studies.comparison import (  # fmt: skip
    Run,
    SeedSpread,
    StudyTable,
    finished,
    mean_difference,
    read_table,
    spread,
    write_table,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "ap_synthetic"
COST = {
    "parameters": 1.5,
    "gflops": 0.25,
    "gflops_of_size": 0.24,
    "size": "96 x 128",
    "images_per_second": 90.0,
    "machine": "M, 1 thread",
}


def run(variant: str, seed: int, ap: float, apart: Difference | None = None) -> Run:
    key = {"detector.encoder_layers": int(variant)}
    return Run(
        variant, seed, key, key, "finished", None, {"val/AP": ap, "val/APl": -1.0}, [(1.0, ap / 2), (2.0, ap)], COST,
        {} if apart is None else {"AP": apart},
    )  # fmt: skip


TABLE = StudyTable(
    "encoder-depth", "tiny", "Table 2", "1",
    [
        run("0", 0, 0.30, Difference(-0.10, -0.12, -0.08)), run("0", 1, 0.34, Difference(-0.08, -0.10, -0.06)),
        run("1", 0, 0.40), run("1", 1, 0.42),
        Run("2", 0, {"detector.encoder_layers": 2}, {"detector.encoder_layers": 2}, "failed", "out of luck"),
    ],
)  # fmt: skip


def test_a_table_is_read_as_it_was_written_and_replaces_the_earlier_table(tmp_path: Path) -> None:
    write_table(StudyTable("encoder-depth", "tiny", "Table 2", "1", []), tmp_path)
    file = write_table(TABLE, tmp_path)
    again = read_table(file)
    assert json.loads(json.dumps(again, default=vars)) == json.loads(json.dumps(TABLE, default=vars))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.csv", "study.json"]
    lines = (tmp_path / "study.csv").read_text().splitlines()
    assert lines[0] == (
        "variant,seed,status,detector.encoder_layers,val/AP,val/APl,"
        '"AP minus base, value","AP minus base, low","AP minus base, high",'
        "parameters,gflops,gflops_of_size,size,images_per_second,machine"
    )
    assert lines[1] == '0,0,finished,0,0.3,-1.0,-0.1,-0.12,-0.08,1.5,0.25,0.24,96 x 128,90.0,"M, 1 thread"'
    assert lines[5] == "2,0,failed,2,,,,,,,,,,,"


def test_a_table_of_an_earlier_version_keeps_its_runs(tmp_path: Path) -> None:
    file = write_table(TABLE, tmp_path)
    content = json.loads(file.read_text())
    for row in content["runs"]:
        row["difference"] = row.pop("differences").get("AP")
    worded = {"text": "t", "published": "p", "measured": "AP 1 higher", "verdict": "supported", "reason": ""}
    file.write_text(json.dumps(content | {"claims": [worded]}))
    again = read_table(file)
    assert [run.differences for run in again.runs] == [run.differences for run in TABLE.runs]
    assert again.claims == [], "the study's command decides them again"


def test_the_csv_file_has_the_differences_of_all_metrics(tmp_path: Path) -> None:
    apart = {"AP": Difference(0.1, 0.05, 0.15), "PQ": Difference(-0.02, -0.03, -0.01)}
    runs = [Run("a", 0, {}, {}, "finished"), Run("b", 0, {}, {}, "finished", differences=apart)]
    write_table(StudyTable("panoptic", "tiny", "Table 5", "a", runs), tmp_path)
    lines = (tmp_path / "study.csv").read_text().splitlines()
    assert lines[0] == (
        "variant,seed,status,"
        '"AP minus base, value","AP minus base, low","AP minus base, high",'
        '"PQ minus base, value","PQ minus base, low","PQ minus base, high"'
    )
    assert lines[1:] == ["a,0,finished,,,,,,", "b,0,finished,0.1,0.05,0.15,-0.02,-0.03,-0.01"]


def test_metrics_and_differences_are_means_over_seeds() -> None:
    runs = finished(TABLE)
    assert list(runs) == ["0", "1"]
    assert spread(runs["0"], "val/AP") == SeedSpread(pytest.approx(0.32), 0.30, 0.34, 2)
    assert spread(runs["0"], "val/APl") is None, "-1 was never measured"
    assert spread(runs["0"], "val/PQ") is None
    apart = mean_difference(runs["0"], "AP")
    assert apart is not None
    assert (apart.value, apart.low, apart.high) == pytest.approx((-0.09, -0.11, -0.07))
    assert mean_difference(runs["1"], "AP") is None
    assert mean_difference(runs["0"], "PQ") is None


def test_the_interval_contains_the_difference_and_is_zero_for_the_same_results(tmp_path: Path) -> None:
    results = json.loads((GOLDEN / "bbox.json").read_text())
    worse = [detection | {"score": 1 - detection["score"]} for detection in results]
    differences = bootstrap_differences(GOLDEN / "gt.json", results, worse, samples=50)
    metrics, others = (coco_ap(GOLDEN / "gt.json", detections, "bbox").metrics for detections in (results, worse))
    assert list(differences) == list(METRICS)
    for name, difference in differences.items():
        assert difference.value == pytest.approx(others[name] - metrics[name])
        assert difference.low <= difference.value <= difference.high
    assert differences["AP"].high < 0
    same = bootstrap_differences(GOLDEN / "gt.json", results, results, samples=50)
    assert set(same.values()) == {Difference(0, 0, 0)}
