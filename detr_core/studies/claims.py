"""Decides whether the results of a study support what the paper claims about it.

A claim is a set of differences between variants that must be positive, or small. Two things can make a difference appear by
chance: the choice of the validation images, which a bootstrap interval covers, and the seed of the training, which only repeated
trainings show. A claim that differences are positive is decided only if they exceed both effects. A claim that they are small is
decided only if neither effect could move them across the limit.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from detr_core.config import require
from detr_core.numbers import signed

Verdict = Literal["supported", "contradicted", "undecided", "not measured"]
"""'undecided' means that the measured differences could be chance; 'not measured' that a variant has no comparable result."""

_OPTIONAL = {"optional": True}  # the key can be left out of a profile


@dataclass(frozen=True)
class PaperClaim:
    """A claim of the paper. text: the claim as a sentence. published: the paper's values, in words."""

    text: str
    published: str

    def with_measurements(self, metric: str, comparisons: Sequence[Comparison]) -> MeasuredClaim:
        """Returns this claim with what an evaluating study measured about it. metric: of the comparisons."""
        return MeasuredClaim(self.text, self.published, metric, comparisons)

    def with_verdict(self, differences: str, verdict: Verdict, reason: str) -> Claim:
        """Returns this claim with its verdict. differences: what was measured, in words."""
        return Claim(self.text, self.published, differences, verdict, reason)


@dataclass(frozen=True)
class ClaimConfig(PaperClaim):
    """A claim of the paper about the variants of a training study.

    metric: the metric that is compared, such as AP, APs or PQ. Exactly one of the other keys says which differences the claim is
    about: `ascending` lists variants from the lowest to the highest metric, `lowest` or `highest` names a variant that is below
    or above all others, and `similar` lists two variants whose metrics differ by at most `within` (AP and PQ are in 0..1).
    """

    metric: str
    ascending: tuple[str, ...] | None = field(default=None, metadata=_OPTIONAL)
    lowest: str | None = field(default=None, metadata=_OPTIONAL)
    highest: str | None = field(default=None, metadata=_OPTIONAL)
    similar: tuple[str, str] | None = field(default=None, metadata=_OPTIONAL)
    within: float | None = field(default=None, metadata=_OPTIONAL)

    def __post_init__(self) -> None:
        forms = [name for name in ("ascending", "lowest", "highest", "similar") if getattr(self, name) is not None]
        require(len(forms) == 1, "claims", "one of ascending, lowest, highest, similar in each claim", forms or "none of them")
        require(self.ascending is None or len(set(self.ascending)) > 1, "ascending", "two variants or more", self.ascending)
        require(self.similar is None or len(set(self.similar)) == 2, "similar", "two different variants", self.similar)
        consistent = (self.within is not None and self.within > 0) == (self.similar is not None)
        require(consistent, "within", "a difference above 0 with `similar`, null without it", self.within)

    def named(self) -> tuple[str, ...]:
        """Returns the variants that the claim names."""
        return self.ascending or self.similar or tuple(name for name in (self.lowest, self.highest) if name is not None)

    def pairs(self, variants: Sequence[str]) -> list[tuple[str, str]]:
        """Returns the pairs (variant, variant expected to have a higher metric) of a study with these variants.

        A claim of similarity has one pair, in either order.
        """
        if self.ascending is not None:
            return list(zip(self.ascending, self.ascending[1:], strict=False))
        if self.similar is not None:
            return [self.similar]
        if self.lowest is not None:
            return [(self.lowest, other) for other in variants if other != self.lowest]
        assert self.highest is not None
        return [(other, self.highest) for other in variants if other != self.highest]


@dataclass(frozen=True)
class SeedDifference:
    """The metric of one variant minus that of another, both trained with the same seed.

    first, second: the metrics; the difference is second minus first. low, high: its 95% interval over bootstrap samples of the
    validation images, None if the metric has no such interval.
    """

    first: float
    second: float
    low: float | None
    high: float | None

    @property
    def value(self) -> float:
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """One of the comparisons that a claim is about, measured with one detector. what: such as 'layer 2 against layer 1'."""

    what: str
    difference: SeedDifference


@dataclass(frozen=True)
class MeasuredClaim(PaperClaim):
    """A claim about one detector, which an evaluating study has measured: every comparison must be positive.

    metric: the metric of the comparisons.
    """

    metric: str
    comparisons: Sequence[Comparison]


@dataclass(frozen=True)
class Claim(PaperClaim):
    """A claim with its verdict.

    measured: the measured differences, in words. verdict: see Verdict. reason: why the claim is undecided or not measured; empty
    for the other verdicts.
    """

    measured: str
    verdict: Verdict
    reason: str


def is_positive(
    differences: Sequence[SeedDifference], seed_spread: float | None, same_detector: bool = False
) -> tuple[Verdict, str]:
    """Decides whether a difference is positive, from the differences of all seeds. Returns the verdict and the reason.

    seed_spread: the range of the metric over the seeds of a variant that was trained with several seeds; None if it is unknown.
    It matters only if there is one difference. With several, the ranges of both metrics over the seeds must not overlap.
    same_detector: whether both metrics of a difference are of the same trained detector, such as those of two decoder layers.
    Then a seed changes both alike, and it is the differences of all seeds that must have the same sign.
    """
    if not differences:
        return "not measured", "a variant has no result"
    value = statistics.fmean(difference.value for difference in differences)
    low, high = _interval(differences)
    if low is None or high is None:
        within_chance, reason = False, ""
    else:
        within_chance, reason = low <= 0 <= high, "the interval over the validation images includes 0"
    if within_chance:
        return "undecided", reason
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
    differences: Mapping[tuple[str, str], Sequence[SeedDifference]],
    variants: Sequence[str],
    seed_spread: float | None,
) -> Claim:
    """Decides a claim about a study with these variants.

    differences: pair of variants -> the difference of the claim's metric for each seed; a missing pair was not measured.
    The claim is contradicted if one of its pairs is; otherwise not measured if one of them is; otherwise undecided if one of them
    is; otherwise supported.
    """
    verdicts: list[Verdict] = []
    reasons: dict[str, str] = {}
    words: list[str] = []
    for first, second in config.pairs(variants):
        pair = differences.get((first, second), ())
        if config.within is None:
            verdict, reason = is_positive(pair, seed_spread)
        else:
            verdict, reason = is_small(pair, config.within, seed_spread)
        verdicts.append(verdict)
        reasons[f"{second} against {first}"] = reason
        words.append(f"{second} {_in_words(pair)} than {first}" if pair else f"{second} against {first} not measured")
    return config.with_verdict(f"{config.metric} {'; '.join(words)}", combined(verdicts), _grouped(reasons))


def _grouped(reasons: Mapping[str, str]) -> str:
    """Returns each reason once, after the names of the comparisons that have it; without names if all have the same reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    if len(names) == 1 and len(reasons) > 1 and all(reasons.values()):
        return next(iter(names))
    return "; ".join(f"{', '.join(about)}: {reason}" for reason, about in names.items() if reason)


def decide_measured(detectors: Sequence[MeasuredClaim], seed_spread: float | None) -> Claim:
    """Decides a claim that an evaluating study has measured with one detector, or with detectors of several seeds.

    detectors: the same claim, measured with each of the detectors. seed_spread: see `is_positive`.
    """
    first = detectors[0]
    verdicts: list[Verdict] = []
    reasons: dict[str, str] = {}
    words: list[str] = []
    for index, comparison in enumerate(first.comparisons):
        differences = [detector.comparisons[index].difference for detector in detectors]
        verdict, reason = is_positive(differences, seed_spread, same_detector=True)
        verdicts.append(verdict)
        reasons[comparison.what] = reason
        words.append(f"{comparison.what}: {_in_words(differences)}")
    return first.with_verdict(f"{first.metric}, {'; '.join(words)}", combined(verdicts), _grouped(reasons))


def write_measured(claims: Sequence[MeasuredClaim], folder: Path) -> None:
    """Writes `claims.json` into the folder of an evaluating study's results."""
    (folder / "claims.json").write_text(json.dumps([asdict(claim) for claim in claims], indent=1), encoding="utf-8")


def read_measured(folder: Path) -> list[MeasuredClaim]:
    """Returns the content of the `claims.json` of an evaluating study's results; nothing if the study has no claims."""
    file = folder / "claims.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return [
        MeasuredClaim(**(claim | {"comparisons": [_comparison(comparison) for comparison in claim["comparisons"]]}))
        for claim in content
    ]


def _comparison(content: Mapping[str, Any]) -> Comparison:
    return Comparison(content["what"], SeedDifference(**content["difference"]))


def combined(verdicts: Sequence[Verdict]) -> Verdict:
    """Returns the verdict of a claim that consists of several comparisons with these verdicts."""
    for verdict in ("contradicted", "not measured", "undecided"):
        if verdict in verdicts:
            return verdict
    return "supported" if verdicts else "not measured"


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


def _in_words(differences: Sequence[SeedDifference]) -> str:
    value = 100 * statistics.fmean(difference.value for difference in differences)
    low, high = _interval(differences)
    bounds = "" if low is None or high is None else f" ({signed(100 * low)} to {signed(100 * high)})"
    return f"{abs(value):.1f} {'higher' if value >= 0 else 'lower'}{bounds}"
