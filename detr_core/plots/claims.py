"""Collects the paper's claims about a profile's studies with their verdicts, for the page of claims and for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from detr_core.plots.sections import Link
from detr_core.studies.claims import (
    Claim,
    ClaimConfig,
    MeasuredClaim,
    PaperClaim,
    Verdict,
    not_measured,
    read_measured,
)
from detr_core.studies.comparison import Table, finished, read_table
from detr_core.studies.verdicts import decide_measured
from detr_core.wording import counted

PAGE = "claims.html"  # beside the report


@dataclass(frozen=True)
class ProfileStudies:
    """The studies of a profile that support its kind of detector.

    commands: study -> the command that runs it. claims: study -> the claims of the paper that it decides. made_by: the digest of
    the present data and code (see `Run.made_by`); results with another digest are marked as those of earlier code or data, and
    with None no digests are compared. places: study -> its table, figure or section of the paper.
    """

    commands: Mapping[str, str]
    claims: Mapping[str, Sequence[PaperClaim]]
    made_by: str | None = None
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DecidedClaim:
    """A claim with its verdict.

    detectors: the detectors that it was measured with; '' if they are the profile's detector or the study's own variants.
    """

    claim: Claim
    detectors: str = ""


def decided_claims(studies: Path, profile: ProfileStudies) -> dict[str, list[DecidedClaim]]:
    """Returns study -> its claims with their verdicts, for each study of the profile about which the paper claims something.

    studies: the folder with `evaluating/<study>/claims.json` and `training/<study>/study.json`. Every claim that the profile
    states is there; without results that decide it, it is not measured.
    """
    tables = [read_table(file) for file in sorted(studies.glob("training/*/study.json"))]
    decided = {}
    for study, stated in profile.claims.items():
        table = next((table for table in tables if table.study == study), None)
        if stated and table is not None:
            decided[study] = [_of_training_study(claim, table, profile.made_by) for claim in stated]
        elif stated:
            decided[study] = _of_evaluating_study(studies, study, stated, tables)
    return decided


def verdict_counts(claims: Sequence[DecidedClaim]) -> dict[Verdict, int]:
    """Returns the number of claims with each verdict."""
    counts = Counter(each.claim.verdict for each in claims)
    return {verdict: counts[verdict] for verdict in get_args(Verdict)}


def summary(claims: Sequence[DecidedClaim]) -> str:
    """Returns a sentence with the number of claims, also by verdict."""
    return f"{counted(len(claims), 'claim')}: {_by_verdict(claims)}."


def link_to(study: str, claims: Sequence[DecidedClaim]) -> Link:
    """Returns a link to the claims of a study on the page of claims."""
    return Link(f"{PAGE}#study-{study}", f"The paper's claims about this study: {_by_verdict(claims)}")


def _by_verdict(claims: Sequence[DecidedClaim]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in verdict_counts(claims).items() if count)


def _of_training_study(stated: PaperClaim, table: Table, made_by: str | None) -> DecidedClaim:
    claim = next((claim for claim in table.claims if _is_about(claim, stated, table)), None)
    if claim is None:
        return DecidedClaim(not_measured(stated, "the study's table does not decide this claim; the command decides it"))
    old = made_by is not None and any(run.made_by not in (None, made_by) for run in table.runs)
    return DecidedClaim(_of_earlier_code(claim) if old else claim)


def _is_about(claim: Claim, stated: PaperClaim, table: Table) -> bool:
    """Returns whether a claim of the table is the stated one, also after a change of the profile."""
    if isinstance(stated, ClaimConfig):
        return claim.asks == stated.asks(list(dict.fromkeys(run.variant for run in table.runs)))
    return claim.text == stated.text


def _of_evaluating_study(studies: Path, study: str, stated: Sequence[PaperClaim], tables: Sequence[Table]) -> list[DecidedClaim]:
    """Returns the claims about an evaluating study.

    The study measures its claims with the profile's detector, and also with the detectors that training studies have trained with
    several seeds.
    """
    folder = studies / "evaluating" / study
    was_run = (folder / "metrics.json").is_file() or (folder / "claims.json").is_file()
    reason = "the results of the study do not have this claim; the command measures it" if was_run else "the study was not run"
    own = {claim.text: claim for claim in read_measured(folder)}
    rows = [
        DecidedClaim(decide_measured([own[claim.text]], None) if claim.text in own else not_measured(claim, reason))
        for claim in stated
    ]
    for table in tables:
        for variant, runs in finished(table).items():
            folders = [studies / "training" / table.study / f"{variant}-seed{run.seed}" / study for run in runs]
            measured = [claims for folder in folders if (claims := read_measured(folder))]
            detectors = f"{variant} of the study {table.study}, {counted(len(measured), 'seed')}"
            rows += [DecidedClaim(claim, detectors) for claim in _over_seeds(measured, stated)]
    return rows


def _over_seeds(detectors: Sequence[Sequence[MeasuredClaim]], stated: Sequence[PaperClaim]) -> list[Claim]:
    """Returns the stated claims that were measured with all of these detectors, or with some, decided over the latter."""
    found = []
    for claim in stated:
        same = [each for claims in detectors for each in claims if each.text == claim.text]
        if same:
            found.append(decide_measured(same, None))
    return found


def _of_earlier_code(claim: Claim) -> Claim:
    note = "these results were made by earlier code or data"
    return replace(claim, reason=f"{claim.reason}; {note}" if claim.reason else note)
