"""What an evaluating study writes about its claims are differences of its own metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detr_core.data.splits import Split
from detr_core.reporter import Silent
from detr_core.studies.claims import read_measured
from detr_core.studies.evaluating import EVALUATING
from tests.conftest import tiny_settings
from tests.tiny_detector import dataset_of, detector, study_inputs


@pytest.mark.parametrize("study", EVALUATING)
def test_every_study_writes_the_measurements_of_its_claims(study: str, split: Split, tmp_path: Path) -> None:
    model = detector(dataset_of(split).categories, mask_head=False)
    EVALUATING[study].run(study_inputs(model, split, Silent()), tiny_settings().studies.evaluating[study], tmp_path)
    stated = [claim.text for claim in EVALUATING[study].claims]
    measured = read_measured(tmp_path)
    assert stated != []
    assert [claim.text for claim in measured] == stated
    assert all((claim.reason == "") == (len(claim.comparisons) > 0) for claim in measured), "each has comparisons or a reason"
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    differences = [comparison.difference for claim in measured for comparison in claim.comparisons]
    for comparison in (comparison for claim in measured for comparison in claim.comparisons):
        low, high = comparison.difference.low, comparison.difference.high
        assert comparison.names is not None
        assert (low is None) == (high is None) == (comparison.units == 1), "an interval, except over a single object"
        assert low is None or high is None or low <= high
    if study == "scoring":
        on, off = (metrics[f"override_{override}/score_0/AP"] for override in ("on", "off"))
        assert [difference.value for difference in differences] == [pytest.approx(on - off)]
    if study == "decoder-attention" and "extremities/times" in metrics:
        assert differences[0].second == metrics["extremities/times"]
        assert differences[0].first == metrics["interior/times"]
    if study == "encoder-attention" and "same_class/times" in metrics:
        assert differences[0].second == metrics["own/times"]
    if study == "instance-count":
        for count in json.loads((tmp_path / "counts.json").read_text()):
            missed, trained = count["missed"]["mean"], max(count["most_in_training"], 1)
            if trained < len(missed):
                difference = differences.pop(0)
                assert (difference.first, difference.second) == (missed[trained - 1], missed[-1])
        assert differences == []
