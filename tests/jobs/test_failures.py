"""A training that can't be carried out stops with an error that names the reason, and keeps what was good."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.config import ConfigError
from detr_core.loss.matcher import NonFiniteError
from detr_core.reporter import Silent
from detr_core.storage import StorageError
from detr_core.train.config import OptimizerConfig, ScheduleConfig
from flows.runtime import launch
from tests.conftest import tiny_settings
from tests.jobs.training_jobs import (
    ALONE,
    job,
)
from tests.jobs.training_process import carry_out
from tests.kinds import RECIPES


def test_a_loss_of_another_kind_of_detector_is_refused(dataset: Path, tmp_path: Path) -> None:
    plain = job(dataset, tmp_path)
    with pytest.raises(
        ConfigError, match=r"train_detection\.loss\.kind: expected 'focal' with detector\.kind 'deformable', found 'softmax'"
    ):
        carry_out(replace(plain, detector=RECIPES["deformable"]["detector"]), ALONE, Silent())


def test_a_training_without_room_for_its_files_is_refused_before_the_first_step(
    dataset: Path, disk: Path, tmp_path: Path
) -> None:
    (disk / "full").write_bytes(b"\0" * 900_000)
    with pytest.raises(StorageError, match=rf"^{disk}/work: expected .* bytes\) free for the state and the checkpoints"):
        carry_out(job(dataset, disk), ALONE, Silent())
    assert [path.name for path in disk.iterdir()] == ["full"]


def test_a_full_disk_during_a_training_is_reported(
    dataset: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detr_core.train.loop.require_room", lambda *_: None)  # something else fills the disk meanwhile
    with pytest.raises(StorageError, match=rf"^{disk / 'work' / 'state.pt'}: it cannot be written, because no space is left"):
        carry_out(job(dataset, disk), ALONE, Silent())
    assert not [path for path in (disk / "work").rglob("*") if path.is_file()]


def test_a_loss_that_is_not_finite_names_where(dataset: Path, tmp_path: Path) -> None:
    loss = replace(tiny_settings().train_detection.loss, giou=3.4e38)
    where = r"not finite \(loss inf, .*\), image ids \[\d+(, \d+){7}\], at step 1 \(epoch 0\); no checkpoint was written yet"
    with pytest.raises(NonFiniteError, match=where):
        carry_out(job(dataset, tmp_path, loss=loss), ALONE, Silent())
    assert not (tmp_path / "out").exists()


def test_the_last_good_state_before_a_loss_that_is_not_finite_is_kept_and_named(dataset: Path, tmp_path: Path) -> None:
    runaway = OptimizerConfig(lr=1e37, backbone_lr=1e37, weight_decay=0, clip_norm=1)
    changes: dict[str, Any] = {"optimizer": runaway, "schedule": ScheduleConfig("step", 0, (1,)), "checkpoint_every": 1}
    with pytest.raises(NonFiniteError) as error:
        carry_out(job(dataset, tmp_path, **changes), ALONE, Silent())
    state = tmp_path / "work" / "state.pt"
    remaining = f"{re.escape(str(state))} is from step 1; a lower optimizer.lr may help"
    assert re.search(rf", image ids \[.*\], at step 2 \(epoch 0\); {remaining}$", str(error.value))
    assert torch.load(state, weights_only=True)["progress"]["step"] == 1


def test_of_several_processes_the_one_whose_loss_it_was_names_its_images(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    file = copy / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    objects = {annotation["image_id"] for annotation in content["annotations"]}
    full, empty = min(objects), next(image["id"] for image in content["images"] if image["id"] not in objects)
    content["images"] = [image for image in content["images"] if image["id"] in (full, empty)]
    content["annotations"] = [annotation for annotation in content["annotations"] if annotation["image_id"] == full]
    file.write_text(json.dumps(content))
    loss = replace(tiny_settings().train_detection.loss, giou=3.4e38)
    with pytest.raises(launch.RankProcessError, match=rf"not finite \(loss inf, .*\), image ids \[{full}\], at step 1 "):
        launch.run(asdict(job(copy, tmp_path, loss=loss)), 2, Silent())
