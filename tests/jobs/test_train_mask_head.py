"""The training of a mask head leaves its detector unchanged and refuses a detector that it can't use."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.config import ConfigError
from detr_core.model.checkpoint import CheckpointError, load_checkpoint
from detr_core.model.detr.model import Detr
from detr_core.reporter import Silent
from detr_core.train_mask_head.initial import with_mask_head
from flows.runtime import launch
from tests.conftest import Trained, tiny_settings
from tests.jobs.training_jobs import (
    ALONE,
    CPU,
    assert_same_training,
    job,
    mask_job,
    weights,
)
from tests.jobs.training_process import carry_out


def test_two_processes_train_a_mask_head_as_one(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    carry_out(job(dataset, tmp_path / "detector", targets="panoptic", steps=1), ALONE, Silent())
    carry_out(mask_job(dataset, tmp_path / "one", tmp_path / "detector"), ALONE, Silent())
    launch.run(asdict(mask_job(dataset, tmp_path / "two", tmp_path / "detector")), 2, Silent())
    assert_same_training(tmp_path / "one", tmp_path / "two")
    detector, two = weights(tmp_path / "detector"), weights(tmp_path / "two")
    assert all(torch.equal(detector[name], two[name]) for name in detector), "the frozen detector stays as it was"


def test_a_detector_of_other_categories_gets_no_mask_head(dataset: Path, tmp_path: Path) -> None:
    carry_out(job(dataset, tmp_path), ALONE, Silent())  # of the instances: things alone
    masks = mask_job(dataset, tmp_path / "masks", tmp_path)
    with pytest.raises(ConfigError, match=r"targets: expected a detector trained on the panoptic file's \d+ categories"):
        carry_out(masks, ALONE, Silent())


def test_another_profiles_detector_gets_no_mask_head(dataset: Path, tmp_path: Path) -> None:
    carry_out(job(dataset, tmp_path), ALONE, Silent())
    other = replace(mask_job(dataset, tmp_path / "masks", tmp_path), profile="other")
    with pytest.raises(CheckpointError, match="expected a checkpoint of profile 'other', found one of 'tiny'"):
        carry_out(other, ALONE, Silent())
    assert not [path for path in (tmp_path / "masks").rglob("*") if path.is_file()]


@pytest.mark.parametrize("maps", ["published", "per_head", "none"])
def test_a_profile_chooses_the_attention_maps_of_its_mask_head(maps: Any) -> None:
    config = replace(tiny_settings().train_panoptic, attention_maps=maps, attention_gain=1.0)
    assert with_mask_head(Detr(tiny_settings().detector, 3, mask_head=False), config).attention_maps == maps


def test_without_attention_maps_there_is_nothing_to_gain() -> None:
    with pytest.raises(ConfigError, match="attention_gain: expected 1 if attention_maps is none, found 64"):
        replace(tiny_settings().train_panoptic, attention_maps="none")


def test_the_mask_head_leaves_its_detector_as_it_was(trained: Trained) -> None:
    detector = load_checkpoint(trained.paths.detection / "checkpoint.pt", CPU).model.state_dict()
    panoptic = load_checkpoint(trained.paths.panoptic / "checkpoint.pt", CPU).model.state_dict()
    own = {name for name in panoptic if name.startswith(("bbox_attention.", "mask_head."))}
    assert panoptic.keys() - own == detector.keys()
    assert all(torch.equal(detector[name], panoptic[name]) for name in detector)
