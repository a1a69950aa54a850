"""The trainings of a mask head: on panoptic segments or on instances alone, on a frozen detector or jointly with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.config import ConfigError, as_dict
from detr_core.data.splits import DatasetError
from detr_core.jobs.training import TrainingJob
from detr_core.model.checkpoint import load_checkpoint
from detr_core.reporter import Silent
from detr_core.sources.scenes import generate_scenes
from flows.runtime import launch
from tests.conftest import tiny_settings
from tests.jobs.training_jobs import (
    ALONE,
    CPU,
    InterruptedAt,
    assert_identical,
    assert_same_training,
    history,
    job,
    mask_job,
    weights,
)
from tests.jobs.training_process import carry_out, float64
from tests.recording_reporter import RecordingReporter

WAYS = [("panoptic", "joint"), ("instances", "frozen"), ("instances", "joint")]  # test_train_mask_head.py has panoptic and frozen


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Scenes with panoptic annotations, and the same scenes with instances alone, of which every third has only a box."""
    folder = tmp_path_factory.mktemp("panoptic")
    scenes = tiny_settings().data.scenes
    assert scenes is not None
    generate_scenes(replace(scenes, train=16, val=4), 0, folder, 1, Silent())
    alone = tmp_path_factory.mktemp("instances") / "scenes"
    shutil.copytree(folder, alone)

    def without_panoptic(content: dict[str, Any]) -> None:
        for split in ("train", "val"):
            content[split] |= {"panoptic": None, "panoptic_masks": None}

    def some_boxes_alone(content: dict[str, Any]) -> None:
        for annotation in content["annotations"][::3]:
            del annotation["segmentation"]

    edit(alone / "dataset.json", without_panoptic)
    edit(alone / "annotations/instances_train.json", some_boxes_alone)
    return {"panoptic": folder, "instances": alone}


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def detectors(datasets: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of a detector for each targets, trained for one step."""
    folders = {}
    for targets, dataset in datasets.items():
        folders[targets] = tmp_path_factory.mktemp(f"detector-{targets}")
        carry_out(job(dataset, folders[targets], targets=targets, steps=1), ALONE, Silent())
    return folders


@pytest.fixture
def of_masks(datasets: dict[str, Path], detectors: dict[str, Path]) -> Callable[..., TrainingJob]:
    def make(folder: Path, targets: str, detector: str, **changes: Any) -> TrainingJob:
        plain = mask_job(datasets[targets], folder, detectors[targets], targets=targets, detector=detector, **changes)
        return replace(plain, loss=as_dict(tiny_settings().train_detection.loss) if detector == "joint" else None)

    return make


def test_only_a_joint_training_changes_the_detector(
    detectors: dict[str, Path], of_masks: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    for targets, detector in WAYS:
        folder = tmp_path / f"{targets}-{detector}"
        carry_out(of_masks(folder, targets, detector), ALONE, Silent())
        before, after = weights(detectors[targets]), weights(folder)
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        learned = {"backbone", "input_proj", "transformer", "query_embed", "class_embed", "bbox_embed"}
        assert changed == (learned if detector == "joint" else set())
        last = history(folder)[-1]
        assert ("val/AP" in last) == (detector == "joint" or targets == "instances")
        assert ("val/mask/AP" in last) == (targets == "instances")
        assert ("val/loss" in last) == (targets == "panoptic")
        assert ("train/giou" in history(folder)[0]) == (detector == "joint")
        trained = load_checkpoint(folder / "out/checkpoint.pt", CPU)
        assert trained.predicts_panoptic_maps == (targets == "panoptic")


@pytest.mark.parametrize(("targets", "detector"), WAYS)
def test_an_interrupted_training_resumes_bit_for_bit(
    targets: str, detector: str, of_masks: Callable[..., TrainingJob], detectors: dict[str, Path], tmp_path: Path
) -> None:
    def with_dropout(folder: Path) -> TrainingJob:
        """The job on a copy of the detector with dropout, which a joint training draws and a frozen detector does not."""
        plain = of_masks(folder, targets, detector, accumulation=2)
        assert plain.init is not None
        content = torch.load(plain.init, weights_only=True)
        content["detector"]["dropout"] = 0.3
        torch.save(content, tmp_path / "detector.pt")
        return replace(plain, init=str(tmp_path / "detector.pt"))

    carry_out(with_dropout(tmp_path / "whole"), ALONE, Silent())
    interrupted, reporter = with_dropout(tmp_path / "interrupted"), RecordingReporter()
    for step in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            carry_out(interrupted, ALONE, InterruptedAt(step))
    carry_out(interrupted, ALONE, reporter)
    assert reporter.messages == ["resuming after step 2"]
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")


@pytest.mark.parametrize(("targets", "detector"), WAYS)
def test_two_processes_and_micro_batches_train_as_one(
    targets: str, detector: str, of_masks: Callable[..., TrainingJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    monkeypatch.setenv("FLOAT64", "1")
    launch.run(asdict(of_masks(tmp_path / "two", targets, detector)), 2, Silent(), module="tests.jobs.training_process")
    with float64():
        carry_out(of_masks(tmp_path / "one", targets, detector), ALONE, Silent())
        carry_out(of_masks(tmp_path / "four", targets, detector, accumulation=4), ALONE, Silent())
        for other in ("two", "four"):
            assert_same_training(tmp_path / "one", tmp_path / other, relative=1e-9, weight=1e-9)


def test_another_loss_of_the_detector_restarts_a_joint_training(of_masks: Callable[..., TrainingJob], tmp_path: Path) -> None:
    whole = of_masks(tmp_path, "panoptic", "joint")
    with pytest.raises(KeyboardInterrupt):
        carry_out(whole, ALONE, InterruptedAt(3))
    reporter = RecordingReporter()
    assert whole.loss is not None
    carry_out(replace(whole, loss=whole.loss | {"giou": 0.5}), ALONE, reporter)
    assert reporter.messages == [
        "starting from the first step, because the interrupted training had other parameters or other data"
    ]


def test_masks_of_instances_need_a_detector_of_instances(
    of_masks: Callable[..., TrainingJob], detectors: dict[str, Path], tmp_path: Path
) -> None:
    wrong = replace(of_masks(tmp_path, "instances", "frozen"), init=str(detectors["panoptic"] / "out/checkpoint.pt"))
    with pytest.raises(ConfigError, match=r"train_detection\.targets: expected a detector trained on the instances file's 4 cat"):
        carry_out(wrong, ALONE, Silent())


def test_a_joint_training_needs_the_loss_of_the_detector(of_masks: Callable[..., TrainingJob], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="loss: expected the detector's loss if detector is 'joint', and null otherwise, found None"
    ):
        carry_out(replace(of_masks(tmp_path, "panoptic", "joint"), loss=None), ALONE, Silent())


def some(content: dict[str, Any]) -> None:
    del content["annotations"][1]["segmentation"]


def without_masks(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        annotation["segmentation"] = []


@pytest.mark.parametrize(
    ("split", "change", "message"),
    [
        ("val", some, r"instances_val\.json: annotations\.segmentation: expected a mask of every object that is not a crowd"),
        (
            "train",
            without_masks,
            r"instances_train\.json: annotations\.segmentation: expected a mask of an object .* found 0 masks of",
        ),
    ],
)
def test_instances_without_masks_are_refused_before_the_first_step(
    split: str,
    change: Callable[[Any], None],
    message: str,
    datasets: dict[str, Path],
    of_masks: Callable[..., TrainingJob],
    tmp_path: Path,
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(datasets["instances"], copy)
    edit(copy / f"annotations/instances_{split}.json", change)
    masks = replace(of_masks(tmp_path, "instances", "frozen"), data=str(copy))
    with pytest.raises(DatasetError, match=message):
        carry_out(masks, ALONE, Silent())
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_instances_has_no_panoptic_masks(
    datasets: dict[str, Path], of_masks: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    masks = replace(of_masks(tmp_path, "panoptic", "frozen"), data=str(datasets["instances"]))
    with pytest.raises(DatasetError, match=r"train\.panoptic: expected panoptic annotations for the mask head, found null; add"):
        carry_out(masks, ALONE, Silent())
