"""The verdict on a claim follows from the intervals over the images and the values of the seeds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detr_core.config import ConfigError, build
from detr_core.studies.claims import (
    ClaimConfig,
    ClaimDifference,
    ClaimValue,
    Comparison,
    MeasuredClaim,
    SeedDifference,
    Verdict,
    read_claim,
    read_measured,
    write_measured,
)
from detr_core.studies.verdicts import combined, decide, decide_measured, is_positive, is_small

SURE = SeedDifference(0.30, 0.40, 0.08, 0.12)
NEGATIVE = SeedDifference(0.40, 0.30, -0.12, -0.08)
CHANCE = SeedDifference(0.30, 0.31, -0.01, 0.03)


@pytest.mark.parametrize(
    ("differences", "seed_spread", "verdict", "reason"),
    [
        ([SURE], 0.05, "supported", ""),
        ([NEGATIVE], 0.05, "contradicted", ""),
        ([SURE], 0.11, "undecided", "another seed changes the metric by 11.0"),
        ([SURE], 0.2, "undecided", "another seed changes the metric by 20.0"),
        ([SURE], None, "undecided", "how much a seed changes the metric is not known"),
        ([CHANCE], 0.0, "undecided", "the interval over the validation images includes 0"),
        ([SURE, SeedDifference(0.29, 0.41, 0.10, 0.14)], None, "supported", ""),
        ([NEGATIVE, SeedDifference(0.41, 0.29, -0.14, -0.10)], None, "contradicted", ""),
        ([SURE, SeedDifference(0.35, 0.39, 0.02, 0.06)], None, "supported", ""),
        ([SURE, SeedDifference(0.40, 0.45, 0.03, 0.07)], None, "undecided", "the values of the seeds overlap"),
        ([SURE, CHANCE], 0.0, "supported", ""),
        ([], 0.0, "not measured", "a variant has no result"),
        ([SeedDifference(0.5, 0.6, None, None)], 0.01, "supported", ""),
        ([SeedDifference(0.5, 0.6, None, None), SeedDifference(0.55, 0.58, None, None)], None, "supported", ""),
        ([SeedDifference(0.5, 0.6, None, None), SeedDifference(0.6, 0.65, None, None)], None, "undecided", "overlap"),
        ([SeedDifference(0.5, 0.5, 0.0, 0.0)], 0.0, "undecided", "includes 0"),
    ],
)
def test_the_interval_and_the_seeds_decide_whether_a_difference_is_positive(
    differences: list[SeedDifference], seed_spread: float | None, verdict: Verdict, reason: str
) -> None:
    decision, why = is_positive(differences, seed_spread)
    assert decision == verdict
    assert reason in why
    assert (why == "") == (verdict in ("supported", "contradicted"))


@pytest.mark.parametrize(
    ("differences", "within", "seed_spread", "verdict"),
    [
        ([CHANCE], 0.05, 0.01, "supported"),
        ([CHANCE], 0.05, 0.03, "undecided"),
        ([CHANCE], 0.02, 0.0, "undecided"),
        ([CHANCE], 0.05, None, "undecided"),
        ([SURE], 0.05, 0.0, "contradicted"),
        ([NEGATIVE], 0.05, 0.0, "contradicted"),
        ([NEGATIVE], 0.05, 0.05, "undecided"),
        ([CHANCE, CHANCE], 0.03, None, "supported"),
        ([CHANCE, SURE], 0.05, None, "undecided"),
        ([], 0.05, 0.0, "not measured"),
    ],
)
def test_the_interval_and_the_seeds_decide_whether_a_difference_is_small(
    differences: list[SeedDifference], within: float, seed_spread: float | None, verdict: Verdict
) -> None:
    assert is_small(differences, within, seed_spread)[0] == verdict


def claim(**form: Any) -> ClaimConfig:
    """Returns a claim about AP of this form."""
    result: ClaimConfig = build(ClaimConfig, {"text": "t", "published": "p", "metric": "AP", **form}, "study.yaml: claims[0]")
    return result


def test_every_form_of_a_claim_has_its_pairs_of_variants() -> None:
    variants = ("a", "b", "c")
    assert claim(ascending=["c", "a", "b"]).pairs(variants) == [("c", "a"), ("a", "b")]
    assert claim(lowest="b").pairs(variants) == [("b", "a"), ("b", "c")]
    assert claim(highest="b").pairs(variants) == [("a", "b"), ("c", "b")]
    assert claim(similar=["c", "a"], within=0.01).pairs(variants) == [("c", "a")]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "one of ascending, lowest, highest, similar in each claim, found 'none of them'"),
        ({"lowest": "a", "highest": "b"}, "found .'lowest', 'highest'."),
        ({"ascending": ["a"]}, "ascending: expected two variants or more"),
        ({"similar": ["a", "b"]}, "within: expected a difference above 0 with `similar`"),
        ({"lowest": "a", "within": 0.1}, "within: expected .* null without it"),
        ({"similar": ["a", "b"], "within": 0.0}, "within: expected a difference above 0"),
    ],
)
def test_a_claim_that_says_nothing_is_refused(form: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        claim(**form)


def test_a_decided_claim_holds_all_its_values_and_differences() -> None:
    measured = {"a": [0.3], "b": [0.4], "c": [0.31]}
    decided = decide(claim(lowest="a"), measured, {("a", "b"): [SURE], ("a", "c"): [CHANCE]}, ("a", "b", "c"), 0.01)
    assert decided.values == [
        ClaimValue("a", 0.3, 0.3, 0.3, 1), ClaimValue("b", 0.4, 0.4, 0.4, 1), ClaimValue("c", 0.31, 0.31, 0.31, 1),
    ]  # fmt: skip
    assert decided.differences == [
        ClaimDifference("b against a", ("a", "b"), pytest.approx(0.1), 0.08, 0.12, 1, None, "supported"),
        ClaimDifference("c against a", ("a", "c"), pytest.approx(0.01), -0.01, 0.03, 1, None, "undecided"),
    ]
    assert decided.verdict == "undecided"
    assert decided.reason == "c against a: the interval over the validation images includes 0"
    assert decided.asks == claim(lowest="a").asks(("a", "b", "c"))
    assert decided.asks != claim(lowest="b").asks(("a", "b", "c"))
    assert read_claim(json.loads(json.dumps(asdict(decided)))) == decided


def test_values_and_bounds_are_means_over_seeds() -> None:
    seeds = [SeedDifference(0.30, 0.40, 0.08, 0.12), SeedDifference(0.20, 0.44, 0.20, 0.28)]
    decided = decide(claim(ascending=["a", "b"]), {"a": [0.3, 0.2], "b": [0.4, 0.44]}, {("a", "b"): seeds}, ("b", "a"), None)
    assert decided.values == [
        ClaimValue("b", pytest.approx(0.42), 0.4, 0.44, 2), ClaimValue("a", pytest.approx(0.25), 0.2, 0.3, 2),
    ]  # fmt: skip
    (difference,) = decided.differences
    assert (difference.value, difference.low, difference.high, difference.seeds) == pytest.approx((0.17, 0.14, 0.20, 2))


def test_a_claim_about_a_variant_without_results_is_not_measured() -> None:
    measured = {"a": [0.3], "b": [0.4]}
    decided = decide(claim(ascending=["a", "b", "c"]), measured, {("a", "b"): [SURE]}, ("a", "b", "c"), 0.01)
    assert decided.verdict == "not measured"
    assert decided.reason == "c against b: a variant has no result"
    assert decided.values[2] == ClaimValue("c", None, None, None, 0)
    assert decided.differences[1] == ClaimDifference("c against b", ("b", "c"), None, None, None, 0, None, "not measured")


def measured(*values: float) -> MeasuredClaim:
    """Returns a claim with one comparison for each of these differences, whose interval is one point to either side."""
    comparisons = [
        Comparison(f"layer {index}", SeedDifference(0.3, 0.3 + value, value - 0.01, value + 0.01))
        for index, value in enumerate(values)
    ]
    return MeasuredClaim("t", "p", "AP", comparisons)


def test_a_claim_about_one_detector_is_decided_over_seeds() -> None:
    one = decide_measured([measured(0.05, 0.02)], None)
    assert one.verdict == "undecided"
    assert [(difference.what, difference.low, difference.high, difference.seeds) for difference in one.differences] == [
        ("layer 0", pytest.approx(0.04), pytest.approx(0.06), 1), ("layer 1", pytest.approx(0.01), pytest.approx(0.03), 1),
    ]  # fmt: skip
    assert decide_measured([measured(0.05, 0.02), measured(0.06, 0.03)], None).verdict == "supported"
    assert decide_measured([measured(0.05, 0.05), measured(0.06, -0.02)], None).reason == "layer 1: the seeds disagree"
    assert decide_measured([measured(0.05, -0.02), measured(0.06, -0.03)], None).verdict == "contradicted"
    assert decide_measured([measured(0.05, 0.005), measured(0.06, 0.005)], None).verdict == "undecided"


def test_a_reason_that_all_comparisons_share_is_given_once() -> None:
    one_seed = "it was measured with one seed, and how much a seed changes the metric is not known"
    assert decide_measured([measured(0.05, 0.02)], None).reason == one_seed
    includes = "the interval over the validation images includes 0"
    assert decide_measured([measured(0.05, 0.005, 0.02)], None).reason == f"layer 0, layer 2: {one_seed}; layer 1: {includes}"


def missed(low: float | None, high: float | None, units: int) -> MeasuredClaim:
    """Returns a claim about 16 copies of an object against 6, whose interval is over this number of objects."""
    difference = SeedDifference(0.1, 0.25, low, high)
    comparison = Comparison("cat: 16 copies against 6", difference, ("6 copies of cat", "16 copies of cat"), units)
    return MeasuredClaim("t", "p", "missed share", [comparison], unit="object")


def test_a_claim_of_an_evaluating_study_has_its_values_and_its_unit() -> None:
    decided = decide_measured([missed(0.1, 0.2, 10), missed(0.1, 0.2, 10)], None)
    assert decided.verdict == "supported"
    assert decided.values == [
        ClaimValue("6 copies of cat", 0.1, 0.1, 0.1, 2),
        ClaimValue("16 copies of cat", 0.25, 0.25, 0.25, 2),
    ]
    assert (decided.unit, decided.differences[0].units) == ("object", 10)
    includes = decide_measured([missed(-0.1, 0.3, 10), missed(-0.1, 0.3, 10)], None)
    assert (includes.verdict, includes.reason) == (
        "undecided",
        "cat: 16 copies against 6: the interval over the objects includes 0",
    )


def test_a_single_object_decides_nothing() -> None:
    decided = decide_measured([missed(None, None, 1), missed(None, None, 1)], None)
    assert decided.verdict == "undecided"
    assert (
        decided.reason
        == "cat: 16 copies against 6: 1 object cannot show how much the choice of the objects changes the difference"
    )
    assert (decided.differences[0].low, decided.differences[0].high) == (None, None)


def test_a_comparison_that_one_seed_lacks_is_not_measured() -> None:
    none = MeasuredClaim("t", "p", "AP", [], reason="no object was detected")
    decided = decide_measured([measured(0.05), none], None)
    assert (decided.verdict, decided.reason) == ("not measured", "layer 0: measured with 1 of 2 seeds")
    nothing = decide_measured([none], None)
    assert (nothing.verdict, nothing.reason, nothing.differences) == ("not measured", "no object was detected", ())


def test_measured_claims_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = [missed(0.1, 0.2, 10), measured(0.05), MeasuredClaim("t", "p", "AP", [], percent=False, reason="none")]
    write_measured(written, tmp_path)
    assert read_measured(tmp_path) == written
    earlier = {"what": "layer 0", "difference": {"first": 0.1, "second": 0.2, "low": None, "high": None}}
    (tmp_path / "claims.json").write_text(json.dumps([{"text": "t", "published": "p", "metric": "AP", "comparisons": [earlier]}]))
    (claim,) = read_measured(tmp_path)
    assert claim.comparisons == [Comparison("layer 0", SeedDifference(0.1, 0.2, None, None))], "earlier versions had no names"


def test_a_conjunction_is_as_strong_as_its_weakest_part() -> None:
    assert combined(["supported", "supported"]) == "supported"
    assert combined(["supported", "undecided"]) == "undecided"
    assert combined(["undecided", "not measured"]) == "not measured"
    assert combined(["not measured", "contradicted"]) == "contradicted"
    assert combined([]) == "not measured"


SEED = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.1), st.floats(0, 0.1)).map(
    lambda values: SeedDifference(values[0], values[1], values[1] - values[0] - values[2], values[1] - values[0] + values[3])
)


@given(st.lists(SEED, min_size=1, max_size=4), st.floats(0, 0.5) | st.none())
def test_exchanging_the_variants_exchanges_the_verdicts(seeds: list[SeedDifference], seed_spread: float | None) -> None:
    exchanged = [SeedDifference(seed.second, seed.first, -(seed.high or 0.0), -(seed.low or 0.0)) for seed in seeds]
    opposite = {"supported": "contradicted", "contradicted": "supported", "undecided": "undecided"}
    assert is_positive(exchanged, seed_spread)[0] == opposite[is_positive(seeds, seed_spread)[0]]
