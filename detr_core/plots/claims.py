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
    read_measured,
)
from detr_core.studies.comparison import StudyTable, finished, read_table
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
    for study, claims in profile.claims.items():
        table = next((table for table in tables if table.study == study), None)
        if claims and table is not None:
            decided[study] = [_of_training_study(claim, table, profile.made_by) for claim in claims]
        elif claims:
            decided[study] = _of_evaluating_study(studies, study, claims, tables)
    return decided


def verdict_counts(claims: Sequence[DecidedClaim]) -> dict[Verdict, int]:
    """Returns the number of claims with each verdict."""
    counts = Counter(decided.claim.verdict for decided in claims)
    return {verdict: counts[verdict] for verdict in get_args(Verdict)}


def summary(claims: Sequence[DecidedClaim]) -> str:
    """Returns a sentence with the number of claims, also by verdict."""
    return f"{counted(len(claims), 'claim')}: {_by_verdict(claims)}."


def link_to(study: str, claims: Sequence[DecidedClaim]) -> Link:
    """Returns a link to the claims of a study on the page of claims."""
    return Link(f"{PAGE}#study-{study}", f"The paper's claims about this study: {_by_verdict(claims)}")


def _by_verdict(claims: Sequence[DecidedClaim]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in verdict_counts(claims).items() if count)


def _of_training_study(paper_claim: PaperClaim, table: StudyTable, made_by: str | None) -> DecidedClaim:
    claim = next((claim for claim in table.claims if _is_about(claim, paper_claim, table)), None)
    if claim is None:
        return DecidedClaim(paper_claim.not_measured("the study's table does not decide this claim; the command decides it"))
    outdated = made_by is not None and any(run.made_by not in (None, made_by) for run in table.runs)
    return DecidedClaim(_of_earlier_code(claim) if outdated else claim)


def _is_about(claim: Claim, paper_claim: PaperClaim, table: StudyTable) -> bool:
    """Returns whether a claim of the table is the one that the profile states, also after a change of the profile."""
    if isinstance(paper_claim, ClaimConfig):
        return claim.asks == paper_claim.asks(list(dict.fromkeys(run.variant for run in table.runs)))
    return claim.text == paper_claim.text


def _of_evaluating_study(
    studies: Path, study: str, claims: Sequence[PaperClaim], tables: Sequence[StudyTable]
) -> list[DecidedClaim]:
    """Returns the claims about an evaluating study.

    The study measures its claims with the profile's detector, and also with the detectors that training studies have trained with
    several seeds.
    """
    folder = studies / "evaluating" / study
    was_run = (folder / "metrics.json").is_file() or (folder / "claims.json").is_file()
    reason = "the results of the study do not have this claim; the command measures it" if was_run else "the study was not run"
    measured = {claim.text: claim for claim in read_measured(folder)}
    rows = [
        DecidedClaim(decide_measured([measured[claim.text]], None) if claim.text in measured else claim.not_measured(reason))
        for claim in claims
    ]
    for table in tables:
        for variant, runs in finished(table).items():
            folders = [studies / "training" / table.study / f"{variant}-seed{run.seed}" / study for run in runs]
            by_seed = [measured_claims for folder in folders if (measured_claims := read_measured(folder))]
            detectors = f"{variant} of the study {table.study}, {counted(len(by_seed), 'seed')}"
            rows += [DecidedClaim(claim, detectors) for claim in _over_seeds(by_seed, claims)]
    return rows


def _over_seeds(detectors: Sequence[Sequence[MeasuredClaim]], claims: Sequence[PaperClaim]) -> list[Claim]:
    """Returns the claims that were measured with at least one of these detectors, decided over those that measured them."""
    decided = []
    for claim in claims:
        by_seed = [measured for detector in detectors for measured in detector if measured.text == claim.text]
        if by_seed:
            decided.append(decide_measured(by_seed, None))
    return decided


def _of_earlier_code(claim: Claim) -> Claim:
    note = "these results were made by earlier code or data"
    return replace(claim, reason=f"{claim.reason}; {note}" if claim.reason else note)
