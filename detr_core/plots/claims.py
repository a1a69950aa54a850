"""Builds the report's section about the paper's claims: what is published, what was measured, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from detr_core.plots.sections import ClaimRow, Section
from detr_core.studies.claims import Claim, MeasuredClaim, PaperClaim, decide_measured, read_measured
from detr_core.studies.comparison import StudyTable, finished, read_table
from detr_core.wording import counted

_METHOD = (
    "A claim is supported or contradicted if its difference exceeds chance: the 95% bootstrap interval over the validation "
    "images does not include 0, and the values of the seeds do not overlap. With a single seed, the difference must exceed the "
    "largest known effect of a seed in this profile. Otherwise it is undecided at this budget. Differences are in percentage "
    "points."
)


@dataclass(frozen=True)
class ProfileStudies:
    """The studies of a profile that support its kind of detector.

    commands: study -> the command that runs it. claims: study -> the claims of the paper that it decides. made_by: the digest of
    the present data and code (see `Run.made_by`); results with another digest are marked as those of earlier code or data, and
    with None no digests are compared.
    """

    commands: Mapping[str, str]
    claims: Mapping[str, Sequence[PaperClaim]]
    made_by: str | None = None


def claims_section(studies: Path, profile: ProfileStudies) -> Section | None:
    """Returns the section with every claim of the profile's studies; None if there is none.

    studies: the folder with `evaluating/<study>/claims.json` and `training/<study>/study.json`. A claim of a study without
    results is listed as not measured.
    """
    tables = [read_table(file) for file in sorted(studies.glob("training/*/study.json"))]
    rows: list[ClaimRow] = []
    for study, claims in profile.claims.items():
        decided = _of_evaluating_study(studies, study, tables) + _of_training_study(study, tables, profile.made_by)
        rows += decided or [_row(study, _not_run(claim)) for claim in claims]
    if not rows:
        return None
    counts = Counter(row.verdict for row in rows)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items(), key=lambda item: -item[1]))
    return Section("claims", "The paper's claims", [f"{counted(len(rows), 'claim')}: {verdicts}.", _METHOD], claims=rows)


def _of_evaluating_study(studies: Path, study: str, tables: Sequence[StudyTable]) -> list[ClaimRow]:
    """Returns the claims that an evaluating study has measured.

    The study measures its claims with the profile's detector, and also with the detectors that training studies have trained with
    several seeds.
    """
    rows = _decided(study, [read_measured(studies / "evaluating" / study)])
    for table in tables:
        for variant, runs in finished(table).items():
            folders = [studies / "training" / table.study / f"{variant}-seed{run.seed}" / study for run in runs]
            measured = [claims for folder in folders if (claims := read_measured(folder))]
            rows += _decided(f"{study} with {variant} of {table.study}, {counted(len(measured), 'seed')}", measured)
    return rows


def _decided(name: str, detectors: Sequence[Sequence[MeasuredClaim]]) -> list[ClaimRow]:
    return [_row(name, decide_measured(claims, seed_spread=None)) for claims in zip(*detectors, strict=True)]


def _of_training_study(study: str, tables: Sequence[StudyTable], made_by: str | None) -> list[ClaimRow]:
    table = next((table for table in tables if table.study == study), None)
    if table is None:
        return []
    outdated = made_by is not None and any(run.made_by not in (None, made_by) for run in table.runs)
    return [_row(study, _of_earlier_code(claim) if outdated else claim) for claim in table.claims]


def _row(study: str, claim: Claim) -> ClaimRow:
    return ClaimRow(study, claim.text, claim.published, claim.measured, claim.verdict, claim.reason)


def _of_earlier_code(claim: Claim) -> Claim:
    note = "these results were made by earlier code or data"
    return replace(claim, reason=f"{claim.reason}; {note}" if claim.reason else note)


def _not_run(claim: PaperClaim) -> Claim:
    return claim.with_verdict("", "not measured", "the study was not run")
