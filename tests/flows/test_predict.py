"""The commands for checkpoints of any origin: prediction, export, and the evaluation of a published checkpoint."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from detr_core.config import ConfigError
from detr_core.data.config import ResizeConfig, SplitConfig
from detr_core.data.splits import DatasetError, write_dataset
from detr_core.model.checkpoint import load_checkpoint
from detr_core.reporter import Silent
from flows import check, evaluate, export, predict
from flows.profile import stage_results
from flows.profile.paths import Paths
from tests.conftest import Trained, tiny_settings
from tests.published_checkpoints import published_weights
from tests.real_data import REAL, needs_real_data

CPU = torch.device("cpu")
SMALL = ["--short", "64", "--longest", "107"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a colour picture, a grey one, a rotated one, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "colour.png")
    Image.fromarray(noise[..., 0]).save(folder / "grey.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise).save(folder / "turned.jpg", exif=turned)
    (folder / "notes.txt").write_text("no image")
    return folder


def command(module: Any, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, words)])
    module.main()


def well_formed(content: dict[str, Any], mask_head: bool) -> None:
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    known = {category["id"] for category in content["categories"]}
    assert not any("unused" in category["name"] for category in content["categories"])
    assert content["annotations"]
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for entry in content["annotations"]:
        assert entry["category_id"] in known
        assert entry["score"] >= 0.5
        assert len(entry["bbox"]) == 4
        assert ("segmentation" in entry) == mask_head
        if mask_head:
            assert rle.decode(entry["segmentation"]).shape == sizes[entry["image_id"]]


@pytest.mark.parametrize("mask_head", [False, True])
def test_a_folder_of_images_gives_predictions_and_pictures(
    request: pytest.FixtureRequest,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mask_head: bool,
) -> None:
    checkpoint = request.getfixturevalue("published_panoptic" if mask_head else "published_file")
    out = tmp_path / "out"
    command(predict, monkeypatch, "--checkpoint", checkpoint, "--images", images, "--out", out, "--threshold", 0.5, *SMALL)
    content = json.loads((out / "predictions.json").read_text())
    message = f"{len(content['annotations'])} detections in 3 images with a score of at least 0.5 (--threshold); "
    assert f"{message}the folder {out} has the results" in capsys.readouterr().out
    assert [image["file_name"] for image in content["images"]] == ["colour.png", "grey.jpg", "turned.jpg"]
    assert [(image["height"], image["width"]) for image in content["images"]] == [(60, 90), (60, 90), (90, 60)]
    assert len(content["categories"]) == (133 if mask_head else 80)
    well_formed(content, mask_head)
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["0001_colour.jpg", "0002_grey.jpg", "0003_turned.jpg"]
    assert ("panoptic" in content) == mask_head
    for entry in content.get("panoptic", []):
        height, width = next((i["height"], i["width"]) for i in content["images"] if i["id"] == entry["image_id"])
        assert Image.open(out / "panoptic" / entry["file_name"]).size == (width, height)


def test_the_threshold_only_filters(published_panoptic: Path, images: Path, tmp_path: Path) -> None:
    trained = load_checkpoint(published_panoptic, CPU)
    config = predict.evaluation(trained, 64, 107)
    files = predict.images_at(str(images / "*.jpg"))
    everything = predict.run(trained, files, 0.0, config, tmp_path / "all", Silent())["annotations"]
    threshold = sorted(entry["score"] for entry in everything)[len(everything) // 2]
    sure = predict.run(trained, files, threshold, config, tmp_path / "sure", Silent())["annotations"]
    expected = [entry for entry in everything if entry["score"] >= threshold]
    assert threshold > 0.5
    assert 0 < len(sure) < len(everything)
    assert [entry | {"id": 0} for entry in sure] == [entry | {"id": 0} for entry in expected]


def test_a_checkpoint_of_this_project_predicts_the_detections_of_its_evaluation(trained: Trained, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained.paths.panoptic / "checkpoint.pt", CPU)
    files = predict.images_at(str(stage_results.dataset(trained.paths)["val"].images))
    content = predict.run(checkpoint, files, 0.05, trained.settings.evaluate, tmp_path / "out", Silent())
    assert len(content["images"]) == 6
    evaluated = json.loads((trained.paths.evaluation / "bbox.json").read_text())
    assert len(content["annotations"]) == sum(entry["score"] >= 0.05 for entry in evaluated)


def test_the_image_size_is_that_of_the_profile(published_file: Path) -> None:
    checkpoint = load_checkpoint(published_file, CPU)
    assert predict.evaluation(checkpoint, None, None).resize == ResizeConfig((800,), 1333)
    assert predict.evaluation(replace(checkpoint, meta={"profile": "demo"}), None, None).resize is None
    assert predict.evaluation(replace(checkpoint, meta={"profile": "gone"}), 64, 107).resize == ResizeConfig((64,), 107)
    with pytest.raises(ConfigError, match=r"--short, --longest: expected both or neither, found \[64, None\]"):
        predict.evaluation(checkpoint, 64, None)


def test_images_and_checkpoints_that_cannot_be_read_are_refused(
    published_file: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DatasetError, match=r"--images .*nowhere: expected an image, a folder of images or a glob"):
        predict.images_at(str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match=r"error: --out .*: expected a new or an empty folder, found a file or a folder"):
        command(predict, monkeypatch, "--checkpoint", published_file, "--images", images, "--out", images)
    with pytest.raises(SystemExit, match=r"error: .*notes.txt: expected an image"):
        command(predict, monkeypatch, "--checkpoint", published_file, "--images", images / "notes.txt", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit, match=r"error: .*nothing.pth: expected a file, found none"):
        command(predict, monkeypatch, "--checkpoint", tmp_path / "nothing.pth", "--images", images, "--out", tmp_path / "out")
    rest = ("--images", images, "--out", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"error: .*expected a file with sha256 0{64}, found one with"):
        command(predict, monkeypatch, "--checkpoint", published_file, "--sha256", "0" * 64, *rest)
    with pytest.raises(SystemExit, match=r"https://example.invalid/a.pth: expected the sha256"):
        command(predict, monkeypatch, "--checkpoint", "https://example.invalid/a.pth", *rest)


def test_an_export_equals_the_published_file(published_panoptic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command(export, monkeypatch, "--checkpoint", published_panoptic, "--out", tmp_path / "again.pth")
    ours, theirs = torch.load(tmp_path / "again.pth", weights_only=True)["model"], published_weights(mask_head=True)
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@needs_real_data
@pytest.mark.parametrize("mask_head", [False, True])
def test_published_weights_are_evaluated_with_cocos_category_ids(
    request: pytest.FixtureRequest, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask_head: bool
) -> None:
    checkpoint = request.getfixturevalue("published_panoptic" if mask_head else "published_file")
    where, settings = Paths("coco-real"), tiny_settings()
    shutil.rmtree(where.data, ignore_errors=True)
    where.data.mkdir(parents=True)
    split = SplitConfig("images", "instances.json", "panoptic.json", "panoptic")
    write_dataset(where.data, REAL / "coco_panoptic", split, split)
    stage_results.write_owner(where.data, where.profile)
    check.run(settings, where, Silent())
    settings = replace(settings, evaluate=replace(settings.evaluate, resize=ResizeConfig((64,), 107)))
    monkeypatch.setattr(evaluate, "load", lambda _: settings)
    words = ("--profile", where.profile, "--checkpoint", checkpoint, "--out", tmp_path / "out")
    command(evaluate, monkeypatch, *words)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= metrics["val/AP"] <= 1
    assert ("val/PQ" in metrics) == ("val/mask/AP" in metrics) == mask_head
    results = json.loads((tmp_path / "out" / "bbox.json").read_text())
    coco = {category["id"] for category in json.loads((REAL / "coco_panoptic" / "instances.json").read_text())["categories"]}
    assert {entry["category_id"] for entry in results} <= coco
    assert not where.evaluation.exists(), "the profile's own evaluation is another"


@needs_real_data
def test_real_images_are_predicted_greyscale_ones_included(published_file: Path, tmp_path: Path) -> None:
    files = predict.images_at(str(REAL / "coco_panoptic" / "images"))
    grey = [file for file in files if Image.open(file).mode == "L"]
    assert grey, "some of COCO is greyscale"
    trained = load_checkpoint(published_file, CPU)
    content = predict.run(trained, files[:3] + grey[:1], 0.5, predict.evaluation(trained, 64, 107), tmp_path / "out", Silent())
    well_formed(content, mask_head=False)
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 4
