"""Each stage refuses what it cannot work with, names the command to run first, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_core.config import ConfigError, build
from detr_core.data.splits import DatasetError
from detr_core.model.checkpoint import CheckpointError
from detr_core.reporter import Reporter, Silent
from flows import evaluate, report, train_detection, train_panoptic
from flows.profile import stage_results
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.profile.stage_results import StageError
from flows.studies import evaluating
from tests.conftest import Trained, tiny_parameters, tiny_settings
from tests.flows.results import file_names
from tests.kinds import DEFORMABLE

Run = Callable[[Profile, Paths, Reporter], dict[str, float]]


def test_a_mask_head_is_for_detr(trained: Trained) -> None:
    content = tiny_parameters()
    content["detector"] = DEFORMABLE["detector"]
    content["train_detection"] |= {"loss": DEFORMABLE["loss"], "optimizer": DEFORMABLE["optimizer"]}
    content["studies"] = {"evaluating": {}, "training": {}}
    with pytest.raises(ConfigError, match=r"detector\.kind: expected 'detr', which can have a mask head, found 'deformable'"):
        train_panoptic.run(build(Profile, content, "tiny.yaml"), trained.paths, Silent())


@pytest.mark.parametrize("run", [train_detection.run, train_panoptic.run, evaluate.run, evaluating.run, report.run])
def test_the_error_of_a_stage_without_its_dataset_names_the_command_to_run(project: Path, run: Run) -> None:
    where = Paths("tiny-nothing")
    with pytest.raises(DatasetError) as raised:
        run(tiny_settings(), where, Silent())
    message = str(raised.value)
    assert message.startswith("data/tiny-nothing: there is no dataset of profile 'tiny-nothing' yet")
    assert "`python -m flows.data --profile tiny-nothing`" in message
    assert not where.runs.exists()


@pytest.mark.parametrize("run", [train_panoptic.run, evaluate.run, evaluating.run])
def test_the_error_of_a_stage_without_its_checkpoint_names_the_command_to_run(tiny_copy: Paths, run: Run) -> None:
    for folder in (tiny_copy.detection, tiny_copy.panoptic):
        shutil.rmtree(folder)
    with pytest.raises(StageError) as raised:
        run(tiny_settings(), tiny_copy, Silent())
    assert "runs/tiny-copy/detection/checkpoint.pt" in str(raised.value)
    assert "`python -m flows.train_detection --profile tiny-copy`" in str(raised.value)
    assert file_names(tiny_copy.runs) == {"check", "dataset"}


def test_a_dataset_of_another_profile_is_refused(tiny_copy: Paths) -> None:
    stage_results.write_owner(tiny_copy.data, "tiny")
    with pytest.raises(DatasetError, match="expected a dataset of profile 'tiny-copy', found one of 'tiny'"):
        evaluate.run(tiny_settings(), tiny_copy, Silent())


@pytest.mark.parametrize("run", [evaluate.run, evaluating.run])
def test_a_checkpoint_of_another_profile_is_refused(trained: Trained, tiny_copy: Paths, run: Run) -> None:
    for folder in ("detection", "panoptic"):
        shutil.copy(trained.paths.runs / folder / "checkpoint.pt", tiny_copy.runs / folder / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="expected a checkpoint of profile 'tiny-copy', found one of 'tiny'"):
        run(tiny_settings(), tiny_copy, Silent())
    assert file_names(tiny_copy.runs) == {"check", "dataset", "detection", "panoptic"}


def test_a_torn_checkpoint_is_refused_and_leaves_nothing(tiny_copy: Paths) -> None:
    path = tiny_copy.panoptic / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"panoptic/checkpoint\.pt"):
        evaluate.run(tiny_settings(), tiny_copy, Silent())
    assert file_names(tiny_copy.runs) == {"check", "dataset", "detection", "panoptic"}


def test_masks_are_not_trained_without_panoptic_annotations(tiny_copy: Paths) -> None:
    file = tiny_copy.dataset / "dataset.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["train"] |= {"panoptic": None, "panoptic_masks": None}
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"train\.panoptic: expected panoptic annotations"):
        train_panoptic.run(tiny_settings(), tiny_copy, Silent())
