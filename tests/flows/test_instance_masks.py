"""A dataset of instances with masks goes through adopt and all stages, on a frozen detector and jointly with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pycocotools import mask as rle

from detr_core.config import ConfigError
from detr_core.data.splits import DatasetError
from detr_core.evaluate.config import EvaluateConfig
from detr_core.model.checkpoint import Checkpoint, load_checkpoint
from detr_core.reporter import Silent
from flows import evaluate, predict, report, train_detection, train_panoptic
from flows.profile import stage_results
from flows.profile.paths import Paths
from flows.profile.settings import load
from flows.tracking.detector_model import DetectorModel
from tests.adopting import adopt_and_check
from tests.conftest import Trained

CPU = torch.device("cpu")


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """The images and the instance annotations of generated scenes, without panoptic annotations."""
    root = tmp_path / "instances"
    for split in ("train", "val"):
        shutil.copytree(trained.paths.data / split, root / split)
        (root / "annotations").mkdir(exist_ok=True)
        shutil.copy(trained.paths.data / f"annotations/instances_{split}.json", root / "annotations")
    return root


def shorten(file: Path, **changes: Any) -> None:
    """Lets both trainings of a profile take one step. changes: values of its section train_panoptic."""
    content = yaml.safe_load(file.read_text())
    for section in ("train_detection", "train_panoptic"):
        content[section] |= {"steps": 1, "validate_every": 1, "batch_size": 4}
    content["train_panoptic"] |= changes
    content["report"]["pictures"] = 1
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("detector", ["frozen", "joint"])
def test_an_adopted_dataset_of_instance_masks_goes_through_all_stages(detector: str, folder: Path, params: Path) -> None:
    name = f"masks-{detector}"
    outcome = adopt_and_check(folder, name, params)
    assert outcome.error == ""
    shorten(params / f"{name}.yaml", detector=detector)
    profile, where = load(name), Paths(name)
    assert profile.train_panoptic is not None
    assert (profile.train_panoptic.targets, profile.train_panoptic.detector) == ("instances", detector)
    train_detection.run(profile, where, Silent())
    trained = train_panoptic.run(profile, where, Silent())
    assert {"val/mask/AP", "val/AP", "train/focal", "train/dice"} <= trained.keys()
    before, after = (
        load_checkpoint(folder_of_stage / "checkpoint.pt", CPU) for folder_of_stage in (where.detection, where.panoptic)
    )
    weights = after.model.state_dict()
    same = [torch.equal(value, weights[key]) for key, value in before.model.state_dict().items()]
    assert any(same) == (detector == "frozen") == all(same)
    assert not after.predicts_panoptic_maps

    metrics = evaluate.run(profile, where, Silent())
    assert metrics["val/mask/AP"] == pytest.approx(trained["val/mask/AP"]), "the last validation is of the same weights"
    assert metrics["val/AP"] == pytest.approx(trained["val/AP"]), "boxes and masks are those of one detector"
    assert not [metric for metric in metrics if "PQ" in metric]
    assert not (where.evaluation / "panoptic.json").exists()
    report.run(profile, where, Silent())
    page = (where.report / "index.html").read_text(encoding="utf-8")
    assert "mask AP" in page
    assert "Panoptic" not in page

    require_same_masks(where, after, profile.evaluate)


def require_same_masks(where: Paths, trained: Checkpoint, config: EvaluateConfig) -> None:
    """Asserts that the served model and the command predict give the masks of the evaluation, and no panoptic map."""
    image = sorted(stage_results.dataset(where)["val"].images.iterdir())[0]
    of_evaluation = json.loads((where.evaluation / "segm.json").read_text())
    first = [entry for entry in of_evaluation if entry["image_id"] == of_evaluation[0]["image_id"]]
    answer = DetectorModel(trained, config, CPU).predict(str(image))
    assert isinstance(answer, dict)
    assert "panoptic" not in answer
    assert len(answer["masks"]) == len(answer["scores"]) == len(first)
    highest = max(first, key=lambda entry: entry["score"])
    assert np.mean(rle.decode(answer["masks"][0]) != rle.decode(highest["segmentation"])) < 0.01
    content = predict.run(trained, [image], 0.0, config, where.runs / "predicted", Silent())
    assert "panoptic" not in content
    assert [entry["segmentation"] for entry in content["annotations"]] == [entry["segmentation"] for entry in first]
    assert {path.name for path in (where.runs / "predicted").iterdir()} >= {"pictures", "predictions.json"}
    assert not (where.runs / "predicted" / "panoptic").exists()


def without_val_masks(root: Path) -> None:
    file = root / "annotations/instances_val.json"
    content = json.loads(file.read_text())
    del content["annotations"][0]["segmentation"]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("targets", "spoil", "message"),
    [
        (
            "panoptic",
            None,
            r"refused/dataset/dataset\.json: train\.panoptic: expected panoptic annotations for the mask head",
        ),
        ("instances", without_val_masks, r"instances_val\.json: annotations\.segmentation: expected a mask of every object"),
    ],
)
def test_masks_that_a_dataset_does_not_have_are_refused_before_the_detector_is_trained(
    targets: str, spoil: Callable[[Path], None] | None, message: str, folder: Path, params: Path
) -> None:
    if spoil is not None:
        spoil(folder)
    shutil.rmtree(Paths("refused").runs, ignore_errors=True)
    shutil.rmtree(Paths("refused").data, ignore_errors=True)
    assert adopt_and_check(folder, "refused", params).error == ""
    section = yaml.safe_load((params / "smoke.yaml").read_text())["train_panoptic"]
    content = yaml.safe_load((params / "refused.yaml").read_text())
    content["train_panoptic"], content["train_detection"]["targets"] = section | {"targets": targets}, targets
    (params / "refused.yaml").write_text(yaml.safe_dump(content))
    where = Paths("refused")
    with pytest.raises(DatasetError, match=message):
        train_detection.run(load("refused"), where, Silent())
    assert not where.detection.exists()


@pytest.mark.parametrize(("masks", "detector"), [("panoptic", "instances"), ("instances", "panoptic")])
def test_a_mask_head_of_other_targets_than_its_detectors_is_refused_when_the_profile_is_read(
    masks: str, detector: str, params: Path
) -> None:
    content = yaml.safe_load((params / "plain.yaml").read_text())
    content["train_panoptic"]["targets"], content["train_detection"]["targets"] = masks, detector
    (params / "plain.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(
        ConfigError,
        match=rf"plain\.yaml: train_panoptic\.targets: expected '{detector}', which train_detection\.targets is, or .*'{masks}'$",
    ):
        load("plain")
