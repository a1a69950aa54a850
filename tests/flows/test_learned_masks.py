"""Detectors that learn masks by themselves go through all stages, and are not trained on a dataset that lacks what they need."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from detr_core.config import build
from detr_core.data.splits import DatasetError
from detr_core.model.checkpoint import load_checkpoint
from detr_core.reporter import Silent
from flows import evaluate, report, train_detection, train_panoptic
from flows.profile import stage_results
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.tracking.detector_model import DetectorModel
from tests.conftest import Trained, copy_data, tiny_parameters
from tests.flows.results import content_of, file_names
from tests.kinds import RECIPES

CPU = torch.device("cpu")


def settings_of(kind: str) -> Profile:
    """Returns the tiny profile with another kind of detector."""
    content, recipe = tiny_parameters(), RECIPES[kind]
    content["detector"], content["train_panoptic"] = recipe["detector"], None
    content["train_detection"] |= {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    content["studies"] = {"evaluating": {}, "training": {}}
    return build(Profile, content, "tiny.yaml")


@pytest.mark.usefixtures("trains_here")
def test_panoptic_fpn_goes_through_all_stages(trained: Trained) -> None:
    paths, settings = Paths("tiny-fpn"), settings_of("panoptic_fpn")
    settings = replace(settings, train_detection=replace(settings.train_detection, steps=2))
    copy_data(trained.paths, paths)
    metrics = train_detection.run(settings, paths, Silent())
    assert {"train/masks", "train/semantic", "val/AP", "val/mask/AP"} <= metrics.keys()
    for stage in (train_panoptic, evaluate, report):
        stage.run(settings, paths, Silent())
    evaluated = content_of(paths.evaluation / "metrics.json")
    assert isinstance(evaluated, dict)
    assert {"val/AP", "val/mask/AP", "val/PQ", "val/PQ_stuff"} <= evaluated.keys()
    assert 'id="panoptic"' in (paths.report / "index.html").read_text(encoding="utf-8")
    model = DetectorModel(load_checkpoint(stage_results.whole_model(paths), CPU), settings.evaluate, CPU)
    (image, *_) = sorted(stage_results.dataset(paths)["val"].images.iterdir())
    prediction = model.predict(str(image))
    assert isinstance(prediction, dict)
    assert prediction["panoptic"].shape == (64, 64)
    assert set(prediction["panoptic"].ravel().tolist()) <= {0, *(segment["id"] for segment in prediction["segments"])}


@pytest.mark.parametrize("kind", ["mask_rcnn", "panoptic_fpn"])
def test_a_detector_that_learns_masks_is_not_trained_on_a_dataset_without_them(kind: str, tiny_copy: Paths) -> None:
    file = tiny_copy.dataset / "dataset.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["train"] |= {"panoptic": None, "panoptic_masks": None}
    file.write_text(json.dumps(content), encoding="utf-8")
    message = rf"train\.panoptic: expected panoptic annotations for detector\.kind '{kind}', found null; add them, or set "
    with pytest.raises(DatasetError, match=rf"{message}.*detector\.kind to one that learns no masks by itself \('detr', "):
        train_detection.run(settings_of(kind), tiny_copy, Silent())
    expected = {"checkpoint.pt", "best.pt", "metrics.json", "history.jsonl"}
    assert file_names(tiny_copy.detection) == expected, "nothing was replaced"


def test_panoptic_fpn_is_not_trained_on_a_dataset_without_stuff(tiny_copy: Paths) -> None:
    dataset = json.loads((tiny_copy.dataset / "dataset.json").read_text(encoding="utf-8"))
    shutil.copytree(tiny_copy.dataset / dataset["annotations"] / "annotations", tiny_copy.dataset / "own" / "annotations")
    (tiny_copy.dataset / "dataset.json").write_text(json.dumps(dataset | {"annotations": "own"}), encoding="utf-8")
    file = tiny_copy.dataset / "own" / dataset["train"]["panoptic"]
    content = json.loads(file.read_text(encoding="utf-8"))
    for category in content["categories"]:
        category["isthing"] = 1
    file.write_text(json.dumps(content), encoding="utf-8")
    message = rf"train\.panoptic: {file}: categories\.isthing: expected categories of things and of stuff for detector\.kind "
    with pytest.raises(DatasetError, match=rf"{message}'panoptic_fpn', found \d+ things and 0 of stuff; add the others, or set "):
        train_detection.run(settings_of("panoptic_fpn"), tiny_copy, Silent())
