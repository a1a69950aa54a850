"""Writes the page of the paper's claims: what is published, what was measured with which interval, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detr_core.plots.claims import PAGE, DecidedClaim, ProfileStudies, verdict_counts
from detr_core.plots.page import templates
from detr_core.studies.claims import Claim, ClaimDifference
from detr_core.wording import counted

_WIDEST = 46.0  # percent of the width of a mark, from its middle, that the largest bound takes


@dataclass(frozen=True)
class Mark:
    """A drawing of a difference: positions from the left of its frame, percent; 0 is in the middle.

    dot: the difference. low, high: its interval, the same as `dot` without one. limits: where a difference that counts as small
    ends, if the claim has such a limit.
    """

    dot: float
    low: float
    high: float
    limits: tuple[float, float] | None


def write_claims_page(profile: str, claims: Mapping[str, Sequence[DecidedClaim]], studies: ProfileStudies, out: Path) -> Path:
    """Writes `out`/claims.html, a page that loads no other file, and returns its path.

    claims: study -> its claims, as `decided_claims` returns them.
    """
    environment = templates()
    environment.filters["marks"] = marks
    environment.filters["units"] = _units
    all_claims = [decided for study_claims in claims.values() for decided in study_claims]
    page = environment.get_template("claims.html.j2").render(
        profile=profile, claims=claims, counts=verdict_counts(all_claims), commands=studies.commands, places=studies.places
    )
    (out / PAGE).write_text(page, encoding="utf-8")
    return out / PAGE


def marks(claim: Claim) -> list[Mark | None]:
    """Returns a mark for each difference of a claim, all on the same scale; None for a difference that was not measured."""
    values = [value for difference in claim.differences for value in (difference.value, difference.low, difference.high)]
    bounds = [abs(value) for value in (*values, claim.within) if value is not None]
    scale = _WIDEST / max(bounds) if bounds and max(bounds) > 0 else 0.0

    def position(value: float) -> float:
        return 50 + scale * value

    def mark(difference: ClaimDifference) -> Mark | None:
        if difference.value is None:
            return None
        low, high = (difference.value if bound is None else bound for bound in (difference.low, difference.high))
        limits = None if claim.within is None else (position(-claim.within), position(claim.within))
        return Mark(position(difference.value), position(low), position(high), limits)

    return [mark(difference) for difference in claim.differences]


def _units(claim: Claim) -> str:
    """Returns what the intervals of a claim are over, such as '10 objects'; '' if none of its differences has an interval."""
    if all(difference.low is None for difference in claim.differences):
        return ""
    numbers = sorted({difference.units for difference in claim.differences if difference.units is not None})
    if not numbers:
        return f"the {claim.unit}s"
    return counted(numbers[0], claim.unit) if len(numbers) == 1 else f"{numbers[0]:,} to {counted(numbers[-1], claim.unit)}"
