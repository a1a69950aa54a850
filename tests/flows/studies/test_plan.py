"""The plan of studies: what would be trained, how large it is, and what is up to date, without any training."""

from __future__ import annotations

import pytest
from rich.table import Table

from detr_core.config import ConfigError
from detr_core.reporter import Silent
from flows.profile.paths import Paths
from flows.studies import plan
from flows.studies.training import Study
from tests.flows.studies.tiny_study import settings


def row_of(text: str, name: str) -> list[str]:
    """Returns the words after the name in the first line that starts with it."""
    (line, *_) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return line.removeprefix(name).split()


def up_to_date(paths: Paths) -> list[str]:
    """Returns the column of the tiny study's plan that counts results."""
    (table,) = [part for part in plan.plan_of("depth", settings(), paths) if isinstance(part, Table)]
    (column,) = [column for column in table.columns if column.header == "up to date"]
    return [str(cell) for cell in column.cells]


def test_the_plan_of_the_paper_has_its_lengths_parameters_and_published_rows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    plan.show("coco", ["encoder-depth", "baselines", "mask-head", "scoring"])
    text = capsys.readouterr().out
    assert "encoder-depth, Table 2: 1 seed, medians over the validations of the last 10 epochs, 91 classes" in text
    assert row_of(text, "12") == ["300", "49.19", "0", "of", "1", "detector.encoder_layers", "12"]
    assert row_of(text, "12 layers") == ["41.6", "49.2", "95"]
    assert row_of(text, "faster-rcnn-dc5-plus")[:5] == ["109", "165.42", "0", "of", "1"]
    assert row_of(text, "Faster R-CNN DC5+") == ["41.1", "166", "320"]
    assert row_of(text, "joint")[:5] == ["1", "step", "+", "300", "42.68"], "250 classes of things and stuff"
    assert "scoring, section 4.1: measures the profile's trained detector and trains nothing." in text
    assert "Claim: DETR is behind Faster R-CNN for small objects." in text


def test_the_plan_counts_the_results_that_are_up_to_date(where: Paths) -> None:
    study = Study("depth", settings(), where)
    assert up_to_date(where) == ["0 of 1", "0 of 1"]
    study.make("0-seed0", Silent(), "a run")
    assert up_to_date(where) == ["1 of 1", "0 of 1"]


def test_an_unknown_study_has_no_plan() -> None:
    with pytest.raises(ConfigError, match="did you mean 'losses'"):
        plan.show("coco", ["loses"])
