"""The metrics of a study can be medians over the validations of the last epochs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.profile.paths import Paths
from flows.studies import results


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A variant whose training validated after epochs 2, 4, 6, 8, 9 and 10, with val/AP of a tenth of the epoch."""
    monkeypatch.setattr(Paths, "detection", tmp_path)
    records = [{"step": 10 * epoch, "epoch": float(epoch), "train/loss": 1.0} for epoch in range(1, 11)]
    records += [
        {"step": 10 * epoch, "epoch": float(epoch), "val/AP": epoch / 10, "val/APl": -1.0} for epoch in (2, 4, 6, 8, 9, 10)
    ]
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return Paths("tiny")


@pytest.mark.parametrize(
    ("median_of", "metrics", "validations"),
    [
        (1, {}, 1),
        (2, {"val/AP": pytest.approx(0.95), "val/APl": -1.0}, 2),
        (3, {"val/AP": 0.9, "val/APl": -1.0}, 3),
        (4, {"val/AP": 0.9, "val/APl": -1.0}, 3),
        (10, {"val/AP": pytest.approx(0.7), "val/APl": -1.0}, 6),
    ],
)
def test_the_median_is_over_the_last_validations(own: Paths, median_of: int, metrics: dict[str, float], validations: int) -> None:
    assert results._last_validations(own, 10, median_of) == (metrics, validations)


def test_a_training_that_ended_early_has_no_median(own: Paths) -> None:
    assert results._last_validations(own, 300, 10) == ({}, 0)
