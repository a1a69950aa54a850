"""A training that distributes images by shape equals one that does not, where each image has the same padding in both."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.checksums import digest
from detr_core.data.batching import BatchPlan, training_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import AugmentationConfig, ResizeConfig
from detr_core.data.splits import read_dataset
from detr_core.data.transforms import training_transform
from detr_core.distributed import ProcessContext
from detr_core.jobs.training import TrainingJob
from detr_core.reporter import Silent
from detr_core.train.state import fingerprint
from flows.runtime import launch
from tests.conftest import tiny_settings
from tests.jobs.test_training_options import OPTIONS
from tests.jobs.training_jobs import ALONE, ANEW, InterruptedAt, assert_identical, assert_same_training, job
from tests.jobs.training_process import CANVAS, canvas, carry_out, float64
from tests.recording_reporter import RecordingReporter

SIDE = 64  # of the scenes, and of every padded batch
SEED = tiny_settings().train_detection.seed
MIXED = AugmentationConfig(0.5, None, ResizeConfig((24, 40, SIDE), SIDE))


def mixed_job(dataset: Path, folder: Path, **changes: Any) -> TrainingJob:
    return job(dataset, folder, augmentation=MIXED, **changes)


def numbers_of_images(dataset: Path, accumulation: int) -> set[int]:
    """Returns how many images the micro-batches of the first epoch have in two processes."""
    images = CocoDataset(read_dataset(dataset)["train"], "instances", False, training_transform(MIXED), SEED)
    plan = BatchPlan(8, accumulation, SEED, "by_shape")
    processes = [ProcessContext(rank, 2, torch.device("cpu")) for rank in range(2)]
    batches = [list(training_batches(images, plan, 0, 0, process, 0)) for process in processes]
    return {len(batch.targets) for share in batches for batch in share}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_processes_with_unequal_numbers_of_images_train_as_one(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulation: int
) -> None:
    assert len(numbers_of_images(dataset, accumulation)) > 1, "the processes have different numbers of images"
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    monkeypatch.setenv("FLOAT64", "1")
    monkeypatch.setenv(CANVAS, str(SIDE))
    two = mixed_job(dataset, tmp_path / "two", distribution="by_shape", accumulation=accumulation)
    launch.run(asdict(two), 2, Silent(), module="tests.jobs.training_process")
    with float64(), canvas(SIDE):
        carry_out(mixed_job(dataset, tmp_path / "one"), ALONE, Silent())
    assert_same_training(tmp_path / "one", tmp_path / "two", relative=1e-9, weight=1e-9)


def test_an_interrupted_training_resumes_bit_for_bit(dataset: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"dropout": 0.3, "accumulation": 4, "distribution": "by_shape"}
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
    without_key = {key: value for key, value in random.config.items() if key not in OPTIONS}
    annotations = [digest(dataset / "annotations" / f"{kind}_train.json") for kind in ("instances", "panoptic")]
    of_earlier_version = fingerprint(without_key, random.detector, annotations, None, None)
    state = torch.load(tmp_path / "work" / "state.pt", weights_only=True)
    assert state["fingerprint"] == of_earlier_version
    reporter = RecordingReporter()
    carry_out(mixed_job(dataset, tmp_path, accumulation=2, distribution="by_shape"), ALONE, reporter)
    assert reporter.messages == [ANEW]
