"""The verdict on a claim follows from the intervals over the images and the values of the seeds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detr_core.config import ConfigError, build
from detr_core.studies.claims import (
    ClaimConfig,
    Comparison,
    MeasuredClaim,
    SeedDifference,
    Verdict,
    combined,
    decide,
    decide_measured,
    is_positive,
    is_small,
)

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
def test_a_difference_is_positive(
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
def test_a_difference_is_small(
    differences: list[SeedDifference], within: float, seed_spread: float | None, verdict: Verdict
) -> None:
    assert is_small(differences, within, seed_spread)[0] == verdict


def claim(**form: Any) -> ClaimConfig:
    """Returns a claim about AP of this form."""
    result: ClaimConfig = build(ClaimConfig, {"text": "t", "published": "p", "metric": "AP", **form}, "study.yaml: claims[0]")
    return result


def test_the_pairs_of_each_form() -> None:
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


def test_a_claim_with_all_its_words() -> None:
    decided = decide(claim(lowest="a"), {("a", "b"): [SURE], ("a", "c"): [CHANCE]}, ("a", "b", "c"), 0.01)
    assert decided.measured == "AP b 10.0 higher (+8.0 to +12.0) than a; c 1.0 higher (−1.0 to +3.0) than a"
    assert decided.verdict == "undecided"
    assert decided.reason == "c against a: the interval over the validation images includes 0"


def test_a_claim_about_a_variant_without_results_is_not_measured() -> None:
    decided = decide(claim(ascending=["a", "b", "c"]), {("a", "b"): [SURE]}, ("a", "b", "c"), 0.01)
    assert decided.verdict == "not measured"
    assert decided.reason == "c against b: a variant has no result"


def measured(*values: float) -> MeasuredClaim:
    """Returns a claim with one comparison for each of these differences, whose interval is one point to either side."""
    comparisons = [
        Comparison(f"layer {place}", SeedDifference(0.3, 0.3 + value, value - 0.01, value + 0.01))
        for place, value in enumerate(values)
    ]
    return MeasuredClaim("t", "p", "AP", comparisons)


def test_a_claim_about_one_detector_is_decided_over_seeds() -> None:
    one = decide_measured([measured(0.05, 0.02)], None)
    assert (one.verdict, one.measured) == (
        "undecided",
        "AP, layer 0: 5.0 higher (+4.0 to +6.0); layer 1: 2.0 higher (+1.0 to +3.0)",
    )
    assert decide_measured([measured(0.05, 0.02), measured(0.06, 0.03)], None).verdict == "supported"
    assert decide_measured([measured(0.05, 0.05), measured(0.06, -0.02)], None).reason == "layer 1: the seeds disagree"
    assert decide_measured([measured(0.05, -0.02), measured(0.06, -0.03)], None).verdict == "contradicted"
    assert decide_measured([measured(0.05, 0.005), measured(0.06, 0.005)], None).verdict == "undecided"


def test_a_reason_that_all_comparisons_share_is_given_once() -> None:
    one_seed = "it was measured with one seed, and how much a seed changes the metric is not known"
    assert decide_measured([measured(0.05, 0.02)], None).reason == one_seed
    includes = "the interval over the validation images includes 0"
    assert decide_measured([measured(0.05, 0.005, 0.02)], None).reason == f"layer 0, layer 2: {one_seed}; layer 1: {includes}"


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
