"""The command `adopt` with checkpoints of other kinds than DETR, which need other recipes, and of other programs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from detr_core.config import ConfigError
from detr_core.model.checkpoint import load_checkpoint
from detr_core.model.spec import kind_of
from flows.new_profile import adoption
from flows.new_profile.recipe import Start
from flows.profile import settings
from flows.profile.settings import load
from tests.check.datasets import write_whole
from tests.flows.new_profile.test_adopt import NAME, adopt
from tests.flows.test_weights_from_elsewhere import KINDS as FILES
from tests.flows.test_weights_from_elsewhere import written
from tests.published_deformable import TWO_STAGE, published_state_dict


@pytest.mark.parametrize("like", ["demo", "coco"])
def test_a_checkpoint_of_deformable_detr_gets_the_recipe_of_its_kind(tmp_path: Path, params: Path, like: str) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    torch.save({"model": published_state_dict(TWO_STAGE)}, tmp_path / "two_stage.pth")
    adopt(root, like=like, start=Start(str(tmp_path / "two_stage.pth"), None))
    profile, recipe = load(NAME), settings.variants(load(like), "baselines")["deformable"]
    assert profile.detector == dataclasses.replace(TWO_STAGE, queries=300)
    assert profile.train_detection.init is not None
    assert profile.train_detection.loss == recipe.train_detection.loss
    assert profile.train_detection.optimizer == recipe.train_detection.optimizer
    assert profile.train_panoptic is None
    assert yaml.safe_load((params / NAME / "profile.yaml").read_text())["kind"] == "deformable"


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_of_another_program_gets_the_recipe_of_its_kind(tmp_path: Path, params: Path, name: str) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    layout, _, detector, _ = FILES[name]
    file = written(name, tmp_path, list(range(1, 91) if layout == "torchvision" else range(91)))
    adopt(root, like="coco", start=Start(str(file), None))
    profile = load(NAME)
    assert profile.detector == load_checkpoint(file, torch.device("cpu")).model.config
    assert profile.train_detection.init is not None
    assert profile.train_detection.init.checkpoint == str(file)
    assert isinstance(profile.train_detection.loss, kind_of(detector.kind).loss)
    content = yaml.safe_load((params / NAME / "profile.yaml").read_text())
    assert (content["kind"], content["builds_on"]) == (detector.kind, kind_of(detector.kind).builds_on)


def test_a_checkpoint_of_a_kind_that_the_recipe_lacks_is_refused(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    adopt(root)  # which has no study of baselines
    torch.save({"model": published_state_dict()}, tmp_path / "a.pth")
    own = (
        "--checkpoint: expected a detector of the profile's kind 'detr', or of a kind in training.baselines or training.panoptic"
    )
    with pytest.raises(ConfigError, match=rf"{own} in .*{NAME}\.studies\.yaml, whose recipe fits it, found 'deformable'"):
        adoption.adopt(root, "another", like=NAME, val_share=0.25, start=Start(str(tmp_path / "a.pth"), None))
