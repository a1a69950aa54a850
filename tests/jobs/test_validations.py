"""A training validates every so many epochs, after each of its last epochs if that is configured, and at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_core.config import ConfigError
from detr_core.reporter import Silent
from tests.jobs.training_jobs import ALONE, history, job, weights
from tests.jobs.training_process import carry_out


def validated_epochs(folder: Path) -> list[float]:
    """Returns the epochs of the validations in the history of a training."""
    return [record["epoch"] for record in history(folder) if "val/AP" in record]


@pytest.mark.parametrize(
    ("every", "last", "expected"),
    [
        (4, 0, [4, 6]),
        (4, 1, [4, 6]),
        (4, 2, [4, 5, 6]),
        (9, 3, [4, 5, 6]),
        (1, 0, [1, 2, 3, 4, 5, 6]),
        (9, 6, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_last_epochs_are_validated(dataset: Path, tmp_path: Path, every: int, last: int, expected: list[float]) -> None:
    carry_out(job(dataset, tmp_path, epochs=6, validate_every=every, validate_last=last), ALONE, Silent())
    assert validated_epochs(tmp_path) == expected


def test_more_validations_do_not_change_the_weights(dataset: Path, tmp_path: Path) -> None:
    for last in (0, 2):
        carry_out(job(dataset, tmp_path / str(last), dropout=0.1, validate_every=9, validate_last=last), ALONE, Silent())
    few, many = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert all((few[name] == many[name]).all() for name in few)


def test_more_epochs_than_there_are_cannot_be_validated(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="validate_last: expected 0 to 2 epochs, found 3"):
        job(dataset, tmp_path, validate_last=3)
