"""Claims about a training study are decided from its table, and only from runs that can be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from detr_core.evaluate.average_precision import coco_ap
from detr_core.studies.claims import Claim, ClaimConfig
from detr_core.studies.comparison import Run, StudyTable
from detr_core.studies.training_claims import decide_claims, known_seed_spreads

GOLDEN = Path(__file__).parent.parent / "golden" / "ap_synthetic"
RISES = ClaimConfig("AP rises", "36.7 to 40.1", "AP", ascending=("bad", "good"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Results files: those of the golden case, and the same with scores that are the wrong way round."""
    folder = tmp_path_factory.mktemp("results")
    results = json.loads((GOLDEN / "bbox.json").read_text())
    (folder / "bad.json").write_text(json.dumps([each | {"score": 1 - each["score"]} for each in results]))
    return {"good": GOLDEN / "bbox.json", "bad": folder / "bad.json"}


@pytest.fixture(scope="module")
def table(files: dict[str, Path]) -> StudyTable:
    """Returns a study of two variants under two seeds."""
    runs = []
    for seed in (0, 1):
        for name, file in files.items():
            ap = coco_ap(GOLDEN / "gt.json", file, "bbox").metrics["AP"] + 0.001 * seed
            runs.append(Run(name, seed, {}, {}, "finished", None, {"val/AP": ap, "val/PQ": ap}, made_by="now"))
    return StudyTable("study", "tiny", "Table 2", "good", runs)


def decided(claim: ClaimConfig, table: StudyTable, files: dict[str, Path], spreads: dict[str, float] | None = None) -> Claim:
    """Returns the verdict on one claim."""
    return decide_claims([claim], table, ["bad", "good"], lambda run: files[run.variant], GOLDEN / "gt.json", spreads or {})[0]


def test_a_large_difference_under_two_seeds_supports_a_claim(table: StudyTable, files: dict[str, Path]) -> None:
    assert decided(RISES, table, files).verdict == "supported"
    falls = ClaimConfig("AP falls", "", "AP", lowest="good")
    assert decided(falls, table, files).verdict == "contradicted"


def test_a_metric_without_intervals_is_decided_by_its_seeds(table: StudyTable, files: dict[str, Path]) -> None:
    claim = replace(RISES, metric="PQ")
    assert decided(claim, table, files).verdict == "supported"
    one_seed = replace(table, runs=table.runs[:2])
    assert decided(claim, one_seed, files).verdict == "undecided"
    assert decided(claim, one_seed, files, {"PQ": 0.9}).verdict == "undecided"
    assert decided(claim, one_seed, files, {"PQ": 0.001}).verdict == "supported"


def test_runs_of_other_code_or_data_are_not_compared(table: StudyTable, files: dict[str, Path]) -> None:
    mixed = [replace(run, made_by="then") if run.variant == "bad" else run for run in table.runs]
    claim = decided(RISES, replace(table, runs=mixed), files)
    assert claim.verdict == "not measured"
    assert "bad with seed 0, bad with seed 1: made by other data or code than the base" in claim.reason


def test_a_median_over_too_few_validations_is_not_compared(table: StudyTable, files: dict[str, Path]) -> None:
    runs = [replace(run, validations=3 if run.variant == "bad" and run.seed == 1 else 10) for run in table.runs]
    claim = decided(RISES, replace(table, runs=runs, median_of=10), files)
    assert claim.verdict == "undecided", "one seed is left"
    assert "bad with seed 1: a median over fewer than 10 validations" in claim.reason


def test_an_unfinished_run_is_named(table: StudyTable, files: dict[str, Path]) -> None:
    runs = [*table.runs[:-1], Run("bad", 1, {}, {}, "failed", "out of luck")]
    assert "bad with seed 1: not finished" in decided(RISES, replace(table, runs=runs), files).reason


def test_the_known_effect_of_a_seed_is_the_largest_range(table: StudyTable) -> None:
    assert known_seed_spreads([table]) == {"AP": pytest.approx(0.001), "PQ": pytest.approx(0.001)}
    wide = replace(table, runs=[replace(run, metrics={"val/AP": 0.3 + 0.02 * run.seed}) for run in table.runs])
    assert known_seed_spreads([table, wide])["AP"] == pytest.approx(0.02)
    assert known_seed_spreads([replace(table, runs=table.runs[:2])]) == {}
