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
    everything = [each for of_study in claims.values() for each in of_study]
    page = environment.get_template("claims.html.j2").render(
        profile=profile, claims=claims, counts=verdict_counts(everything), commands=studies.commands, places=studies.places
    )
    (out / PAGE).write_text(page, encoding="utf-8")
    return out / PAGE


def marks(claim: Claim) -> list[Mark | None]:
    """Returns a mark for each difference of a claim, all on the same scale; None for a difference that was not measured."""
    bounds = [
        abs(value) for each in claim.differences for value in (each.value, each.low, each.high, claim.within) if value is not None
    ]
    scale = _WIDEST / max(bounds) if bounds and max(bounds) > 0 else 0.0

    def place(value: float) -> float:
        return 50 + scale * value

    def mark(each: ClaimDifference) -> Mark | None:
        if each.value is None:
            return None
        low, high = (each.value if bound is None else bound for bound in (each.low, each.high))
        limits = None if claim.within is None else (place(-claim.within), place(claim.within))
        return Mark(place(each.value), place(low), place(high), limits)

    return [mark(each) for each in claim.differences]


def _units(claim: Claim) -> str:
    """Returns what the intervals of a claim are over, such as '10 objects'; '' if none of its differences has an interval."""
    if all(each.low is None for each in claim.differences):
        return ""
    numbers = sorted({each.units for each in claim.differences if each.units is not None})
    if not numbers:
        return f"the {claim.unit}s"
    return counted(numbers[0], claim.unit) if len(numbers) == 1 else f"{numbers[0]:,} to {counted(numbers[-1], claim.unit)}"
