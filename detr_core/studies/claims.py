"""Defines what the paper claims about the studies: the claims, what a study measures of them, and the claims with their verdicts.

`verdicts.py` decides them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from detr_core.config import require

Verdict = Literal["supported", "contradicted", "undecided", "not measured"]
"""'undecided' means that the measured differences could be chance; 'not measured' that a variant has no comparable result."""

VALIDATION_IMAGE = "validation image"

_OPTIONAL = {"optional": True}  # the key can be left out of a profile


@dataclass(frozen=True)
class PaperClaim:
    """A claim of the paper. text: the claim as a sentence. published: the paper's values, in words."""

    text: str
    published: str

    def with_measurements(
        self, metric: str, comparisons: Sequence[Comparison], unit: str = VALIDATION_IMAGE, percent: bool = True
    ) -> MeasuredClaim:
        """Returns this claim with what an evaluating study measured about it. metric, unit, percent: see MeasuredClaim."""
        return MeasuredClaim(self.text, self.published, metric, comparisons, unit, percent)

    def without_measurements(self, reason: str) -> MeasuredClaim:
        """Returns this claim of an evaluating study that could not measure it. reason: why."""
        return MeasuredClaim(self.text, self.published, "", [], reason=reason)

    def not_measured(self, reason: str) -> Claim:
        """Returns this claim with the verdict that it was not measured. reason: why."""
        return Claim(self.text, self.published, "", (), (), "not measured", reason)


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

    def asks(self, variants: Sequence[str]) -> tuple[object, ...]:
        """Returns what the claim asks of a study with these variants, in the form of `Claim.asks`."""
        return self.text, self.published, self.metric, self.within, self.pairs(variants)


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
    """One of the comparisons that a claim is about, measured with one detector.

    what: such as 'layer 2 against layer 1'. names: those of the first and the second value of the difference, if they have names.
    units: the number of images or objects that the bootstrap samples of its interval are drawn from; None if the unit is the
    validation image, or if there is no interval.
    """

    what: str
    difference: SeedDifference
    names: tuple[str, str] | None = None
    units: int | None = None


@dataclass(frozen=True)
class MeasuredClaim(PaperClaim):
    """A claim about one detector, which an evaluating study has measured: every comparison must be positive.

    metric: the metric of the comparisons. unit: what the bootstrap samples are drawn from, in the singular. percent: whether the
    metric is a share, which is shown in percent; otherwise it is a ratio. reason: why there are no comparisons.
    """

    metric: str
    comparisons: Sequence[Comparison]
    unit: str = VALIDATION_IMAGE
    percent: bool = True
    reason: str = ""


@dataclass(frozen=True)
class ClaimValue:
    """The measured metric of a variant, or of another side of a comparison.

    mean, low, high: its mean, smallest and largest value over the seeds; None if no comparable run has measured it. seeds: their
    number.
    """

    name: str
    mean: float | None
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class ClaimDifference:
    """A measured difference that a claim is about, as a mean over seeds.

    what, names, units: see Comparison. value: None if it was not measured. low, high: its 95% interval; None if it has none.
    seeds: the number of seeds. verdict: that of the part of the claim which is about this difference.
    """

    what: str
    names: tuple[str, str] | None
    value: float | None
    low: float | None
    high: float | None
    seeds: int
    units: int | None
    verdict: Verdict


@dataclass(frozen=True)
class Claim(PaperClaim):
    """A claim with its verdict.

    metric, unit, percent: see MeasuredClaim. within: see ClaimConfig. values: the metric of each variant that the claim is about.
    differences: the differences that must be positive, or with `within` small. reason: why the claim is undecided or not
    measured, and which runs were left out.
    """

    metric: str
    values: Sequence[ClaimValue]
    differences: Sequence[ClaimDifference]
    verdict: Verdict
    reason: str
    within: float | None = None
    unit: str = VALIDATION_IMAGE
    percent: bool = True

    @property
    def asks(self) -> tuple[object, ...]:
        """Returns what the claim is about, without what was measured: claims that ask the same are the same claim."""
        pairs = [difference.names for difference in self.differences]
        return self.text, self.published, self.metric, self.within, pairs


def read_claim(content: Mapping[str, Any]) -> Claim:
    """Returns a claim from the content of a JSON file that holds it as a mapping of its fields."""
    values = [ClaimValue(**value) for value in content["values"]]
    differences = [
        ClaimDifference(**(difference | {"names": _names(difference["names"])})) for difference in content["differences"]
    ]
    return Claim(**(dict(content) | {"values": values, "differences": differences}))


def write_measured(claims: Sequence[MeasuredClaim], folder: Path) -> None:
    """Writes `claims.json` into the folder of an evaluating study's results."""
    (folder / "claims.json").write_text(json.dumps([asdict(claim) for claim in claims], indent=1), encoding="utf-8")


def read_measured(folder: Path) -> list[MeasuredClaim]:
    """Returns the content of the `claims.json` of an evaluating study's results; nothing if there is no such file."""
    file = folder / "claims.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return [
        MeasuredClaim(**(claim | {"comparisons": [_comparison(comparison) for comparison in claim["comparisons"]]}))
        for claim in content
    ]


def _comparison(content: Mapping[str, Any]) -> Comparison:
    difference = SeedDifference(**content["difference"])
    return Comparison(content["what"], difference, _names(content.get("names")), content.get("units"))


def _names(content: Sequence[str] | None) -> tuple[str, str] | None:
    return None if content is None else (content[0], content[1])
