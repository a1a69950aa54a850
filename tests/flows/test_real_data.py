"""The whole pipeline on real images that are read in place: a ResNet-50 from scratch, at reduced size, for two steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detr_core.config import build
from detr_core.reporter import Silent
from flows import check, data, evaluate, report, train_detection, train_panoptic
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.studies import evaluating
from tests.conftest import ROOT, read_parameters
from tests.real_data import REAL, needs_real_data

PANOPTIC = {"images": "images", "instances": "instances.json", "panoptic": "panoptic.json", "panoptic_masks": "panoptic"}
INSTANCES = {"images": "images", "instances": "instances.json", "panoptic": None, "panoptic_masks": None}
SETS = {
    "coco_panoptic": (PANOPTIC, PANOPTIC),
    "coco_instances": (INSTANCES, INSTANCES),
    "bccd": (INSTANCES | {"instances": "instances_train.json"}, INSTANCES | {"instances": "instances_val.json"}),
}

MASKS = {"coco_panoptic": "panoptic", "coco_instances": "instances", "bccd": None}


def profile(name: str) -> Profile:
    """Returns the content of the coco profile for other data, made small enough for a test."""
    content = read_parameters(ROOT / "params" / "coco.yaml")
    train, val = SETS[name]
    resize = {"short": [64], "longest": 107}
    folder = {"root": str(REAL / name), "format": "coco", "train": train, "val": val, "val_share": None}
    content["data"] |= {"source": "folder", "download": None, "folder": folder}
    content["detector"]["backbone"] |= {"weights": None, "norm": "group", "frozen_stages": 0}
    content["detector"] |= {"width": 64, "feed_forward": 64, "encoder_layers": 1, "decoder_layers": 2, "queries": 20}
    crop = {"probability": 0.5, "before": [64], "smallest": 48, "largest": 64}
    for stage in ("train_detection", "train_panoptic"):
        content[stage] |= {"epochs": 20, "steps": 2, "batch_size": 4, "resize": resize}
        content[stage]["augmentation"] = {"flip": 0.5, "crop": crop, "resize": resize}
        content[stage]["schedule"]["drop_epochs"] = [10]
    masks = MASKS[name]
    content["train_detection"]["targets"] = masks or "instances"
    if masks is not None:
        content["train_panoptic"] |= {"targets": masks, "detector": "frozen" if masks == "panoptic" else "joint"}
    else:
        content["train_panoptic"] = None
    content["evaluate"] |= {"resize": resize}
    content["studies"]["training"] = {}
    for study in ("decoder-nms", "encoder-attention", "decoder-attention", "scoring"):
        content["studies"]["evaluating"][study] |= {"resize": resize}
    content["studies"]["evaluating"]["instance-count"] |= {"classes": None, "grid": 2, "canvas": 64, "shown": 2, "repeats": 1}
    content["report"]["pictures"] = 2
    content["check"]["mode"] = "strict"
    content["resources"] |= {"processes": 1, "workers": 0}
    return build(Profile, content, f"{name}.yaml")


@needs_real_data
@pytest.mark.usefixtures("trains_here")
@pytest.mark.parametrize("name", ["coco_panoptic", pytest.param("coco_instances", marks=pytest.mark.long), "bccd"])
def test_real_images_go_through_all_stages(name: str, project: Path) -> None:
    settings, where = profile(name), Paths(name)
    assert data.run(settings, where, Silent())["train/images"] == len(json.loads(train_file(name).read_text())["images"])
    assert check.run(settings, where, Silent())["left_out/train/images"] == 0
    assert train_detection.run(settings, where, Silent())["train/loss"] > 0
    metrics = train_panoptic.run(settings, where, Silent())
    assert metrics == {} if MASKS[name] is None else metrics["train/dice"] > 0
    metrics = evaluate.run(settings, where, Silent())
    assert 0 <= metrics["val/AP"] <= 1
    assert ("val/PQ" in metrics) == (MASKS[name] == "panoptic")
    assert ("val/mask/AP" in metrics) == (MASKS[name] is not None)
    cells = evaluating.run(settings, where, Silent())
    assert cells["decoder-nms/depth_2/nms_off/AP"] == pytest.approx(metrics["val/AP"], abs=1e-9)
    report.run(settings, where, Silent())
    assert (where.report / "index.html").stat().st_size > 10_000


def train_file(name: str) -> Path:
    return REAL / name / str(SETS[name][0]["instances"])
