"""A profile of one's own panoptic data can have a detector that predicts panoptic maps by itself."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.new_profile.summary import summary_table
from flows.profile import settings
from flows.profile.settings import load
from tests.check.datasets import write_whole
from tests.flows.new_profile.test_adopt import NAME, adopt


@pytest.mark.parametrize("detector", ["panoptic-fpn", "upsnet", "upsnet-m"])
def test_a_detector_that_predicts_panoptic_maps_by_itself_gets_its_recipe(tmp_path: Path, params: Path, detector: str) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    adopted = adopt(root, like="demo", detector=detector)
    shown = io.StringIO()
    Console(file=shown, width=100).print(summary_table(adopted.paths.profile, adopted.content, adopted.statistics, adopted.deep))
    assert "trained on the panoptic annotations" in shown.getvalue()
    profile, recipe = load(NAME), settings.variants(load("demo"), "panoptic")[detector]
    assert profile.detector == recipe.detector
    assert profile.train_detection.loss == recipe.train_detection.loss
    assert profile.evaluate.panoptic_fpn == recipe.evaluate.panoptic_fpn
    assert profile.evaluate.upsnet == recipe.evaluate.upsnet
    assert profile.evaluate.multi_scale == recipe.evaluate.multi_scale
    assert profile.train_detection.epochs > recipe.train_detection.epochs, "they follow from the number of images"
