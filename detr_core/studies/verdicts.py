"""Decides whether the results of a study support what the paper claims about it.

A claim is a set of differences between variants that must be positive, or small. Two things can make a difference appear by
chance: the choice of the validation images, or of other units that were sampled, which a bootstrap interval covers, and the seed
of the training, which only repeated trainings show. A claim that differences are positive is decided only if they exceed both
effects. A claim that they are small is decided only if neither effect could move them across the limit.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from detr_core.studies.claims import (
    VALIDATION_IMAGE,
    Claim,
    ClaimConfig,
    ClaimDifference,
    ClaimValue,
    Comparison,
    MeasuredClaim,
    SeedDifference,
    Verdict,
)
from detr_core.wording import counted


def is_positive(
    differences: Sequence[SeedDifference],
    seed_spread: float | None,
    same_detector: bool = False,
    unit: str = VALIDATION_IMAGE,
) -> tuple[Verdict, str]:
    """Decides whether a difference is positive, from the differences of all seeds. Returns the verdict and the reason.

    seed_spread: the range of the metric over the seeds of a variant that was trained with several seeds; None if it is unknown.
    It matters only if there is one difference. With several, the ranges of both metrics over the seeds must not overlap.
    same_detector: whether both metrics of a difference are of the same trained detector, such as those of two decoder layers.
    Then a seed changes both alike, and it is the differences of all seeds that must have the same sign. unit: what the bootstrap
    samples are drawn from, in the singular.
    """
    if not differences:
        return "not measured", "a variant has no result"
    value = statistics.fmean(difference.value for difference in differences)
    low, high = _interval(differences)
    if low is not None and high is not None and low <= 0 <= high:
        return "undecided", f"the interval over the {unit}s includes 0"
    if len(differences) == 1:
        if seed_spread is None:
            return "undecided", "it was measured with one seed, and how much a seed changes the metric is not known"
        if abs(value) <= seed_spread:
            return "undecided", f"it was measured with one seed, and another seed changes the metric by {100 * seed_spread:.1f}"
    elif same_detector and len({difference.value > 0 for difference in differences}) > 1:
        return "undecided", "the seeds disagree"
    elif not same_detector and _overlap(differences):
        return "undecided", "the values of the seeds overlap"
    return ("supported", "") if value > 0 else ("contradicted", "")


def is_small(differences: Sequence[SeedDifference], within: float, seed_spread: float | None) -> tuple[Verdict, str]:
    """Decides whether a difference is at most `within` in either direction.

    differences, seed_spread and the result: see `is_positive`.
    """
    if not differences:
        return "not measured", "a variant has no result"
    low, high = _interval(differences)
    values = [difference.value for difference in differences]
    slack = (seed_spread or 0.0) if len(values) == 1 else 0.0
    bottom = min([*values, *([low] if low is not None else [])]) - slack
    top = max([*values, *([high] if high is not None else [])]) + slack
    if len(values) == 1 and seed_spread is None:
        return "undecided", "it was measured with one seed, and how much a seed changes the metric is not known"
    if -within <= bottom and top <= within:
        return "supported", ""
    if bottom > within or top < -within:
        return "contradicted", ""
    return "undecided", f"the difference may be from {100 * bottom:.1f} to {100 * top:.1f}"


def decide(
    config: ClaimConfig,
    measured: Mapping[str, Sequence[float]],
    differences: Mapping[tuple[str, str], Sequence[SeedDifference]],
    variants: Sequence[str],
    seed_spread: float | None,
) -> Claim:
    """Decides a claim about a study with these variants.

    measured: variant -> the claim's metric for each seed. differences: pair of variants -> the difference of the claim's metric
    for each seed; a missing pair was not measured.
    The claim is contradicted if one of its pairs is; otherwise not measured if one of them is; otherwise undecided if one of them
    is; otherwise supported.
    """
    decided: list[ClaimDifference] = []
    reasons: dict[str, str] = {}
    for pair in config.pairs(variants):
        pair_differences = differences.get(pair, ())
        if config.within is None:
            verdict, reason = is_positive(pair_differences, seed_spread)
        else:
            verdict, reason = is_small(pair_differences, config.within, seed_spread)
        what = f"{pair[1]} against {pair[0]}"
        reasons[what] = reason
        decided.append(_difference(what, pair, pair_differences, None, verdict))
    names = dict.fromkeys(name for pair in config.pairs(variants) for name in pair)
    values = [_value(name, measured.get(name, ())) for name in sorted(names, key=list(variants).index)]
    verdict = combined([difference.verdict for difference in decided])
    return Claim(config.text, config.published, config.metric, values, decided, verdict, _grouped(reasons), config.within)


def decide_measured(detectors: Sequence[MeasuredClaim], seed_spread: float | None) -> Claim:
    """Decides a claim that an evaluating study has measured with one detector, or with detectors of several seeds.

    detectors: the same claim, measured with each of the detectors. seed_spread: see `is_positive`. A comparison that was not
    measured with each of the detectors is not measured, and so is a claim without comparisons.
    """
    first = detectors[0]
    by_what = [{comparison.what: comparison for comparison in detector.comparisons} for detector in detectors]
    reasons: dict[str, str] = {}
    decided: list[ClaimDifference] = []
    values: dict[str, list[float]] = {}
    for what in dict.fromkeys(what for comparisons in by_what for what in comparisons):
        by_seed = [comparisons[what] for comparisons in by_what if what in comparisons]
        if len(by_seed) < len(detectors):
            verdict: Verdict = "not measured"
            reasons[what] = f"measured with {len(by_seed)} of {len(detectors)} seeds"
        else:
            verdict, reasons[what] = _of_detectors(by_seed, seed_spread, first.unit)
        pair, differences = by_seed[0].names, [comparison.difference for comparison in by_seed]
        decided.append(_difference(what, pair, differences, by_seed[0].units, verdict))
        if pair is not None:
            values[pair[0]] = [difference.first for difference in differences]
            values[pair[1]] = [difference.second for difference in differences]
    if not decided:
        return first.not_measured("; ".join(dict.fromkeys(detector.reason for detector in detectors if detector.reason)))
    return Claim(
        first.text, first.published, first.metric, [_value(name, by_seed) for name, by_seed in values.items()], decided,
        combined([difference.verdict for difference in decided]), _grouped(reasons), None, first.unit, first.percent,
    )  # fmt: skip


def _of_detectors(comparisons: Sequence[Comparison], seed_spread: float | None, unit: str) -> tuple[Verdict, str]:
    """Decides one comparison, measured with detectors of several seeds. Without an interval, chance is not known."""
    numbers = [comparison.units for comparison in comparisons if comparison.difference.low is None]
    too_few = next((number for number in numbers if number is not None), None)
    if too_few is not None:
        return "undecided", f"{counted(too_few, unit)} cannot show how much the choice of the {unit}s changes the difference"
    return is_positive([comparison.difference for comparison in comparisons], seed_spread, same_detector=True, unit=unit)


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Returns the verdict of a claim that consists of several comparisons with these verdicts."""
    for verdict in ("contradicted", "not measured", "undecided"):
        if verdict in verdicts:
            return verdict
    return "supported" if verdicts else "not measured"


def _difference(
    what: str, names: tuple[str, str] | None, differences: Sequence[SeedDifference], units: int | None, verdict: Verdict
) -> ClaimDifference:
    if not differences:
        return ClaimDifference(what, names, None, None, None, 0, units, verdict)
    value = statistics.fmean(difference.value for difference in differences)
    return ClaimDifference(what, names, value, *_interval(differences), len(differences), units, verdict)


def _value(name: str, values: Sequence[float]) -> ClaimValue:
    if not values:
        return ClaimValue(name, None, None, None, 0)
    return ClaimValue(name, statistics.fmean(values), min(values), max(values), len(values))


def _grouped(reasons: Mapping[str, str]) -> str:
    """Returns each reason once, after the names of the comparisons that have it; without names if all have the same reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    if len(names) == 1 and len(reasons) > 1 and all(reasons.values()):
        return next(iter(names))
    return "; ".join(f"{', '.join(about)}: {reason}" for reason, about in names.items() if reason)


def _interval(differences: Sequence[SeedDifference]) -> tuple[float | None, float | None]:
    """Returns the means of the bounds over the seeds; None if a difference has no bounds.

    The interval of the mean bounds is at least as wide as the interval of the mean difference.
    """
    lows = [difference.low for difference in differences if difference.low is not None]
    highs = [difference.high for difference in differences if difference.high is not None]
    if len(lows) < len(differences) or len(highs) < len(differences):
        return None, None
    return statistics.fmean(lows), statistics.fmean(highs)


def _overlap(differences: Sequence[SeedDifference]) -> bool:
    first, second = [pair.first for pair in differences], [pair.second for pair in differences]
    return max(min(first), min(second)) <= min(max(first), max(second))
