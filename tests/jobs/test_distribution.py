"""A training that distributes images by shape equals one that does not, where each image has the same padding in both."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.checksums import digest
from detr_core.data.config import AugmentationConfig, ResizeConfig
from detr_core.jobs.training import TrainingJob
from detr_core.reporter import Silent
from detr_core.train.state import fingerprint
from flows.runtime import launch
from tests.jobs.training_jobs import ALONE, ANEW, InterruptedAt, assert_identical, assert_same_training, job
from tests.jobs.training_process import CANVAS, canvas, carry_out, float64
from tests.recording_reporter import RecordingReporter

SIDE = 64  # of the scenes, and of every padded batch
MIXED = AugmentationConfig(0.5, None, ResizeConfig((24, 40, SIDE), SIDE))


def mixed_job(dataset: Path, folder: Path, **changes: Any) -> TrainingJob:
    return job(dataset, folder, augmentation=MIXED, **changes)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_processes_with_unequal_numbers_of_images_train_as_one(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    monkeypatch.setenv("FLOAT64", "1")
    monkeypatch.setenv(CANVAS, str(SIDE))
    two = mixed_job(dataset, tmp_path / "two", distribution="by_shape", accumulation=accumulation)
    launch.run(asdict(two), 2, Silent(), module="tests.jobs.training_process")
    with float64(), canvas(SIDE):
        carry_out(mixed_job(dataset, tmp_path / "one"), ALONE, Silent())
    assert_same_training(tmp_path / "one", tmp_path / "two", relative=1e-9, weight=1e-9)


def test_an_interrupted_training_resumes_bit_for_bit(dataset: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"dropout": 0.3, "accumulation": 3, "distribution": "by_shape"}
    carry_out(mixed_job(dataset, tmp_path / "whole", **changes), ALONE, Silent())
    interrupted, reporter = mixed_job(dataset, tmp_path / "interrupted", **changes), RecordingReporter()
    with pytest.raises(KeyboardInterrupt):
        carry_out(interrupted, ALONE, InterruptedAt(5))
    carry_out(interrupted, ALONE, reporter)
    assert reporter.messages == ["resuming after step 4"]
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")


def test_states_of_versions_without_the_key_stay_usable_and_another_distribution_starts_anew(
    dataset: Path, tmp_path: Path
) -> None:
    random = mixed_job(dataset, tmp_path, accumulation=2)
    with pytest.raises(KeyboardInterrupt):
        carry_out(random, ALONE, InterruptedAt(5))
    without_key = {key: value for key, value in random.config.items() if key != "distribution"}
    annotations = [digest(dataset / "annotations" / f"{kind}_train.json") for kind in ("instances", "panoptic")]
    of_earlier_version = fingerprint(without_key, random.detector, annotations, None, None)
    state = torch.load(tmp_path / "work" / "state.pt", weights_only=True)
    assert state["fingerprint"] == of_earlier_version
    reporter = RecordingReporter()
    carry_out(mixed_job(dataset, tmp_path, accumulation=2, distribution="by_shape"), ALONE, reporter)
    assert reporter.messages == [ANEW]
