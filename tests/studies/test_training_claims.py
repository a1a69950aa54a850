"""Claims about a training study are decided from its table, and only from runs that can be compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from detr_core.data.splits import Split
from detr_core.evaluate.average_precision import ResultKind, bootstrap_differences, coco_ap
from detr_core.evaluate.panoptic_quality import panoptic_quality
from detr_core.evaluate.panoptic_sums import image_sums
from detr_core.studies.claims import Claim, ClaimConfig
from detr_core.studies.comparison import Run, StudyTable
from detr_core.studies.intervals import Intervals
from detr_core.studies.panoptic_intervals import panoptic_differences
from detr_core.studies.training_claims import decide_claims, known_seed_spreads

GOLDEN = Path(__file__).parent.parent / "golden" / "ap_synthetic"
PANOPTIC = Path(__file__).parent.parent / "golden" / "pq_synthetic"
KINDS: tuple[ResultKind, ResultKind] = ("bbox", "segm")
RISES = ClaimConfig("AP rises", "36.7 to 40.1", "AP", ascending=("bad", "good"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Evaluations: `bad` has the detections of the golden case with scores that are the wrong way round, and its panoptic maps;
    `good` has the detections as they are, and the true panoptic maps."""
    folder = tmp_path_factory.mktemp("results")
    for kind in ("bbox", "segm"):
        results = json.loads((GOLDEN / f"{kind}.json").read_text())
        for name, content in {
            "good": results,
            "bad": [detection | {"score": 1 - detection["score"]} for detection in results],
        }.items():
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{kind}.json").write_text(json.dumps(content))
    content = json.loads((PANOPTIC / "pred.json").read_text())
    for entry in content["annotations"]:
        (folder / "bad" / "panoptic").mkdir(exist_ok=True)
        shutil.copy(PANOPTIC / "pred" / entry["file_name"], folder / "bad" / "panoptic")
    (folder / "bad" / "panoptic.json").write_text(json.dumps(content))
    shutil.copytree(PANOPTIC / "gt", folder / "good" / "panoptic")
    shutil.copy(PANOPTIC / "gt.json", folder / "good" / "panoptic.json")
    return {name: folder / name for name in ("good", "bad")}


@pytest.fixture(scope="module")
def intervals() -> Intervals:
    """Returns the intervals over the images of the golden cases. The panoptic case has images of its own."""
    return Intervals(Split("val", GOLDEN, GOLDEN / "gt.json", PANOPTIC / "gt.json", PANOPTIC / "gt"))


@pytest.fixture(scope="module")
def table(files: dict[str, Path]) -> StudyTable:
    """Returns a study of two variants under two seeds."""
    runs = []
    for seed in (0, 1):
        for name, file in files.items():
            ap, mask_ap = (coco_ap(GOLDEN / "gt.json", file / f"{kind}.json", kind).metrics["AP"] for kind in KINDS)
            maps = panoptic_quality(PANOPTIC / "gt.json", PANOPTIC / "gt", file / "panoptic.json", file / "panoptic")
            metrics = {"val/AP": ap, "val/mask/AP": mask_ap, "val/PQ": maps["all"]["pq"], "val/speed": ap}
            shifted = {metric: value + 0.001 * seed for metric, value in metrics.items()}
            runs.append(Run(name, seed, {}, {}, "finished", None, shifted, made_by="now"))
    return StudyTable("study", "tiny", "Table 2", "good", runs)


class Decided(Protocol):
    """Decides one claim."""

    def __call__(self, claim: ClaimConfig, table: StudyTable, spreads: dict[str, float] | None = None) -> Claim: ...


@pytest.fixture(scope="module")
def decided(files: dict[str, Path], intervals: Intervals) -> Decided:
    """Returns a function that decides one claim."""

    def decide(claim: ClaimConfig, table: StudyTable, spreads: dict[str, float] | None = None) -> Claim:
        return decide_claims([claim], table, ["bad", "good"], lambda run: files[run.variant], intervals, spreads or {})[0]

    return decide


def test_a_large_difference_under_two_seeds_supports_a_claim(table: StudyTable, decided: Decided) -> None:
    assert decided(RISES, table).verdict == "supported"
    falls = ClaimConfig("AP falls", "", "AP", lowest="good")
    assert decided(falls, table).verdict == "contradicted"


def test_a_metric_without_intervals_is_decided_by_its_seeds(table: StudyTable, decided: Decided) -> None:
    claim = replace(RISES, metric="speed")
    assert decided(claim, table).verdict == "supported"
    one_seed = replace(table, runs=table.runs[:2])
    assert decided(claim, one_seed).verdict == "undecided"
    assert decided(claim, one_seed, {"speed": 0.9}).verdict == "undecided"
    assert decided(claim, one_seed, {"speed": 0.001}).verdict == "supported"


def test_masks_and_panoptic_maps_have_intervals_too(table: StudyTable, files: dict[str, Path], decided: Decided) -> None:
    masks = bootstrap_differences(GOLDEN / "gt.json", files["bad"] / "segm.json", files["good"] / "segm.json", 1000, "segm")["AP"]
    sums = [
        image_sums(PANOPTIC / "gt.json", PANOPTIC / "gt", files[name] / "panoptic.json", files[name] / "panoptic")
        for name in ("bad", "good")
    ]
    maps = panoptic_differences(sums[0], sums[1], samples=1000)["PQ"]
    for metric, expected in (("mask/AP", masks), ("PQ", maps)):
        claim = decided(replace(RISES, metric=metric), table)
        assert claim.verdict == "supported"
        (difference,) = claim.differences
        values = (difference.value, difference.low, difference.high)
        assert values == pytest.approx((expected.value, expected.low, expected.high)), metric
        assert 0 < expected.low < expected.value < expected.high
        assert [(value.name, value.seeds) for value in claim.values] == [("bad", 2), ("good", 2)]
    spread = decided(replace(RISES, metric="PQ"), replace(table, runs=table.runs[:2]), {"PQ": 0.9})
    assert spread.verdict == "undecided", "one seed"


def test_similar_panoptic_quality_is_decided_by_the_whole_interval(table: StudyTable, decided: Decided) -> None:
    claim = ClaimConfig("PQ is similar", "", "PQ", similar=("bad", "good"), within=0.01)
    high = decided(claim, table).differences[0].high
    assert high is not None
    assert decided(claim, table).verdict == "contradicted"
    assert decided(replace(claim, within=high - 0.001), table).verdict == "undecided"
    assert decided(replace(claim, within=high + 0.01), table).verdict == "supported"


def test_a_metric_that_no_run_has_is_named(table: StudyTable, decided: Decided) -> None:
    claim = decided(replace(RISES, metric="PQth"), table)
    assert claim.verdict == "not measured"
    runs = "good with seed 0, bad with seed 0, good with seed 1, bad with seed 1"
    assert claim.reason == f"good against bad: a variant has no result; {runs}: no value of PQth"


def test_runs_of_other_code_or_data_are_not_compared(table: StudyTable, decided: Decided) -> None:
    mixed = [replace(run, made_by="then") if run.variant == "bad" else run for run in table.runs]
    claim = decided(RISES, replace(table, runs=mixed))
    assert claim.verdict == "not measured"
    assert "bad with seed 0, bad with seed 1: made by other data or code than the base" in claim.reason


def test_a_median_over_too_few_validations_is_not_compared(table: StudyTable, decided: Decided) -> None:
    runs = [replace(run, validations=3 if run.variant == "bad" and run.seed == 1 else 10) for run in table.runs]
    claim = decided(RISES, replace(table, runs=runs, median_of=10))
    assert claim.verdict == "undecided", "one seed is left"
    assert "bad with seed 1: a median over fewer than 10 validations" in claim.reason


def test_an_unfinished_run_is_named(table: StudyTable, decided: Decided) -> None:
    runs = [*table.runs[:-1], Run("bad", 1, {}, {}, "failed", "out of luck")]
    assert "bad with seed 1: not finished" in decided(RISES, replace(table, runs=runs)).reason


def test_the_known_effect_of_a_seed_is_the_largest_range(table: StudyTable) -> None:
    assert known_seed_spreads([table]) == dict.fromkeys(("AP", "mask/AP", "PQ", "speed"), pytest.approx(0.001))
    wide = replace(table, runs=[replace(run, metrics={"val/AP": 0.3 + 0.02 * run.seed}) for run in table.runs])
    assert known_seed_spreads([table, wide])["AP"] == pytest.approx(0.02)
    assert known_seed_spreads([replace(table, runs=table.runs[:2])]) == {}
