"""The report lists every claim of the profile's studies, also those that were not measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_core.plots.claims import ProfileStudies, claims_section
from detr_core.studies.claims import Claim, Comparison, MeasuredClaim, PaperClaim, SeedDifference, write_measured
from detr_core.studies.comparison import Run, StudyTable, write_table

STATED = {
    "decoder-nms": [PaperClaim("AP rises with every layer", "+8.2")],
    "losses": [PaperClaim("L1 alone is worst", "35.8")],
    "positions": [PaperClaim("No encodings are worst", "32.8")],
}
DECIDED = Claim("L1 alone is worst", "35.8", "AP: all 2.0 higher than class + L1", "supported", "")


def measured(difference: float) -> list[MeasuredClaim]:
    """Returns what decoder-nms measures with one detector."""
    interval = SeedDifference(0.3, 0.3 + difference, difference - 0.01, difference + 0.01)
    return [MeasuredClaim("AP rises with every layer", "+8.2", "AP", [Comparison("layer 2 against layer 1", interval)])]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """The results of decoder-nms with the profile's detector and two others, and of the training study losses."""
    for folder in ("evaluating", "training/losses/all-seed0", "training/losses/all-seed1"):
        (tmp_path / folder / "decoder-nms").mkdir(parents=True)
        write_measured(measured(0.05), tmp_path / folder / "decoder-nms")
    runs = [Run("all", seed, {}, {}, "finished", made_by="now") for seed in (0, 1)]
    write_table(StudyTable("losses", "tiny", "Table 4", "all", runs, claims=[DECIDED]), tmp_path / "training" / "losses")
    return tmp_path


def test_every_claim_is_listed_with_its_verdict(studies: Path) -> None:
    section = claims_section(studies, ProfileStudies({}, STATED, "now"))
    assert section is not None
    assert [(row.study, row.verdict, row.reason) for row in section.claims] == [
        ("decoder-nms", "undecided", "layer 2 against layer 1: it was measured with one seed, and how much a seed changes the "
         "metric is not known"),
        ("decoder-nms with all of losses, 2 seeds", "supported", ""),
        ("losses", "supported", ""),
        ("positions", "not measured", "the study was not run"),
    ]  # fmt: skip
    assert section.text[0] == "4 claims: 2 supported, 1 undecided, 1 not measured."


def test_results_of_earlier_code_are_marked(studies: Path) -> None:
    section = claims_section(studies, ProfileStudies({}, {"losses": STATED["losses"]}, "later"))
    assert section is not None
    row = section.claims[0]
    assert (row.text, row.verdict, row.reason) == (DECIDED.text, "supported", "these results were made by earlier code or data")


def test_a_profile_without_claims_has_no_section(studies: Path) -> None:
    assert claims_section(studies, ProfileStudies({}, {})) is None
