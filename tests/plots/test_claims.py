"""The claims of a profile's studies are collected with their verdicts, also those that were not measured."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from detr_core.plots.claims import DecidedClaim, ProfileStudies, decided_claims, link_to, summary, verdict_counts
from detr_core.plots.claims_page import Mark, marks
from detr_core.studies.claims import (
    Claim,
    ClaimConfig,
    ClaimDifference,
    ClaimValue,
    Comparison,
    MeasuredClaim,
    PaperClaim,
    SeedDifference,
    write_measured,
)
from detr_core.studies.comparison import Run, StudyTable, write_table

STATED = {
    "decoder-nms": [PaperClaim("AP rises with every layer", "+8.2"), PaperClaim("NMS costs AP", "0.1 lower")],
    "scoring": [PaperClaim("Empty slots raise AP", "+2")],
    "losses": [PaperClaim("L1 alone is worst", "35.8"), PaperClaim("Auxiliary losses help", "35.5")],
    "positions": [PaperClaim("No encodings are worst", "32.8")],
}
DECIDED = Claim(
    "L1 alone is worst", "35.8", "AP",
    [ClaimValue("class + L1", 0.20, 0.19, 0.21, 2), ClaimValue("all", 0.22, 0.22, 0.22, 2)],
    [ClaimDifference("all against class + L1", ("class + L1", "all"), 0.02, 0.01, 0.03, 2, None, "supported")],
    "supported", "",
)  # fmt: skip
ONE_SEED = "layer 2 against layer 1: it was measured with one seed, and how much a seed changes the metric is not known"


def measured(difference: float) -> list[MeasuredClaim]:
    """Returns what decoder-nms measures with one detector."""
    interval = SeedDifference(0.3, 0.3 + difference, difference - 0.01, difference + 0.01)
    rises = MeasuredClaim("AP rises with every layer", "+8.2", "AP", [Comparison("layer 2 against layer 1", interval)])
    return [rises, MeasuredClaim("NMS costs AP", "0.1 lower", "AP", [], reason="the study has no results with NMS")]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """The results of decoder-nms with the profile's detector and two others, of scoring, and of the training study losses."""
    for folder in ("evaluating", "training/losses/all-seed0", "training/losses/all-seed1"):
        (tmp_path / folder / "decoder-nms").mkdir(parents=True)
        write_measured(measured(0.05), tmp_path / folder / "decoder-nms")
    (tmp_path / "evaluating" / "scoring").mkdir()
    (tmp_path / "evaluating" / "scoring" / "metrics.json").write_text("{}")
    runs = [Run("all", seed, {}, {}, "finished", made_by="now") for seed in (0, 1)]
    write_table(StudyTable("losses", "tiny", "Table 4", "all", runs, claims=[DECIDED]), tmp_path / "training" / "losses")
    return tmp_path


def test_every_claim_is_listed_with_its_verdict(studies: Path) -> None:
    decided = decided_claims(studies, ProfileStudies({}, STATED, "now"))
    rows = [
        (study, claim.detectors, claim.claim.verdict, claim.claim.reason) for study, claims in decided.items() for claim in claims
    ]
    two = "all of the study losses, 2 seeds"
    assert rows == [
        ("decoder-nms", "", "undecided", ONE_SEED),
        ("decoder-nms", "", "not measured", "the study has no results with NMS"),
        ("decoder-nms", two, "supported", ""),
        ("decoder-nms", two, "not measured", "the study has no results with NMS"),
        ("scoring", "", "not measured", "the results of the study do not have this claim; the command measures it"),
        ("losses", "", "supported", ""),
        ("losses", "", "not measured", "the study's table does not decide this claim; the command decides it"),
        ("positions", "", "not measured", "the study was not run"),
    ]
    assert decided["losses"][0].claim == DECIDED
    everything = [claim for claims in decided.values() for claim in claims]
    assert verdict_counts(everything) == {"supported": 2, "contradicted": 0, "undecided": 1, "not measured": 5}
    assert summary(everything) == "8 claims: 2 supported, 1 undecided, 5 not measured."
    link = link_to("losses", decided["losses"])
    assert (link.address, link.text) == (
        "claims.html#study-losses",
        "The paper's claims about this study: 1 supported, 1 not measured",
    )


def test_results_of_earlier_code_are_marked(studies: Path) -> None:
    decided = decided_claims(studies, ProfileStudies({}, {"losses": STATED["losses"][:1]}, "later"))
    assert decided == {"losses": [DecidedClaim(replace(DECIDED, reason="these results were made by earlier code or data"))]}


def test_a_claim_that_now_asks_something_else_is_not_measured(studies: Path) -> None:
    same = ClaimConfig("L1 alone is worst", "35.8", "AP", ascending=("class + L1", "all"))
    other = replace(same, ascending=("all", "class + L1"))
    for claim, verdict in ((same, "supported"), (other, "not measured"), (replace(same, metric="APs"), "not measured")):
        (decided,) = decided_claims(studies, ProfileStudies({}, {"losses": [claim]}))["losses"]
        assert decided.claim.verdict == verdict


def test_claims_in_words_of_an_earlier_version_are_not_measured(studies: Path) -> None:
    file = studies / "training" / "losses" / "study.json"
    words = {"text": DECIDED.text, "published": "35.8", "measured": "AP: all 2.0 higher", "verdict": "supported", "reason": ""}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"claims": [words]}))
    (decided,) = decided_claims(studies, ProfileStudies({}, {"losses": STATED["losses"][:1]}))["losses"]
    assert decided.claim.verdict == "not measured"


def test_a_profile_without_claims_has_none(studies: Path) -> None:
    assert decided_claims(studies, ProfileStudies({}, {"decoder-nms": [], "losses": []})) == {}
    assert decided_claims(studies, ProfileStudies({}, {})) == {}


def test_the_marks_of_a_claim_have_one_scale() -> None:
    def difference(value: float | None, low: float | None, high: float | None) -> ClaimDifference:
        return ClaimDifference("", None, value, low, high, 1, None, "undecided")

    claim = replace(DECIDED, differences=[difference(0.1, 0.0, 0.2), difference(-0.1, None, None), difference(None, None, None)])
    assert marks(claim) == [Mark(73.0, 50.0, 96.0, None), Mark(27.0, 27.0, 27.0, None), None]
    small = marks(replace(claim, within=0.4))
    assert small[0] is not None
    assert small[0].limits == (4.0, 96.0)
    assert marks(replace(claim, differences=[difference(0.0, 0.0, 0.0)])) == [Mark(50.0, 50.0, 50.0, None)]
    assert asdict(claim)["within"] is None
