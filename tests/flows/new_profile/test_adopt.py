"""The command `adopt` writes a profile for a folder in any layout, and never changes the folder or other files."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from detr_core.config import ConfigError
from detr_core.data.splits import DatasetError
from detr_core.model.deformable.config import DeformableConfig
from detr_core.studies.instance_count_config import InstanceCountConfig
from flows.new_profile import adoption, dataset_layout, yolo_layout
from flows.new_profile.recipe import Start
from flows.new_profile.summary import summary_table
from flows.profile import paths, settings
from flows.profile.paths import PARAMS, ROOT
from flows.profile.settings import load
from tests.check.datasets import change, write_whole
from tests.conftest import read_parameters
from tests.model import test_deformable_published as deformable

NAME = "adopted-by-a-test"


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder for new profiles, with a copy of the profiles of this project."""
    folder = tmp_path / "params"
    shutil.copytree(PARAMS, folder)
    for module in (paths, settings):
        monkeypatch.setattr(module, "PARAMS", folder)
    return folder


def made(folder: Path, **options: object) -> adoption.Adopted:
    arguments = {"like": "demo", "val_share": 0.25} | options
    return adoption.adopt(folder, NAME, **arguments)  # type: ignore[arg-type]


def test_boxes_only_without_val(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "cells")
    for name in ("instances_val.json", "panoptic_val.json", "panoptic_train.json", "dataset.json"):
        (root / name).unlink()
    change(root, "train", "instances", without_masks)
    (root / "instances_train.json").rename(root / "annotations.json")
    adopted = made(root)
    profile = load(NAME)
    assert profile.data.folder is not None
    assert profile.data.folder.train.instances == "annotations.json"
    assert profile.data.folder.train.images == "train"
    assert (profile.data.folder.val, profile.data.folder.val_share) == (None, 0.25)
    assert profile.train_panoptic is None
    assert profile.train_detection.targets == "instances"
    assert profile.detector.queries == 10
    assert sum(sum(part.objects.values()) for part in adopted.statistics.values()) == 4
    assert (params / NAME / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text()
    assert yaml.safe_load((params / NAME / "profile.yaml").read_text()) == {"profile": NAME, "kind": "detr", "wd": "../.."}
    assert (params / NAME / "source").readlink() == root


def without_masks(content: dict[str, Any]) -> None:
    for annotation in content["annotations"]:
        del annotation["segmentation"]


def without_a_mask(content: dict[str, Any]) -> None:
    del content["annotations"][1]["segmentation"]


@pytest.mark.parametrize("like", ["demo", "smoke", "coco"])
def test_instance_masks_train_a_mask_head_for_every_recipe(tmp_path: Path, params: Path, like: str) -> None:
    root = write_whole(tmp_path / "data")
    for name in ("panoptic_val.json", "panoptic_train.json", "dataset.json"):
        (root / name).unlink()
    change(root, "train", "instances", without_a_mask)  # a training object may have only a box
    adopted = made(root, like=like)
    profile = load(NAME)
    assert profile.train_panoptic is not None
    assert (profile.train_panoptic.targets, profile.train_panoptic.detector) == ("instances", "frozen")
    assert profile.train_detection.targets == "instances"
    shown = io.StringIO()
    Console(file=shown, width=100).print(summary_table(adopted.paths.profile, adopted.content, adopted.statistics, adopted.deep))
    assert "trained on the masks of the instances" in shown.getvalue()
    assert any(note.startswith("an object without a mask") and "1 in train" in note for note in adopted.notes)


@pytest.mark.parametrize(("split", "edit"), [("val", without_a_mask), ("val", without_masks), ("train", without_masks)])
def test_without_masks_in_both_splits_only_boxes_are_trained(
    tmp_path: Path, params: Path, split: str, edit: Callable[[dict[str, Any]], None]
) -> None:
    root = write_whole(tmp_path / "data")
    for name in ("panoptic_val.json", "panoptic_train.json", "dataset.json"):
        (root / name).unlink()
    change(root, split, "instances", edit)
    made(root)
    assert load(NAME).train_panoptic is None


def test_instance_masks_of_another_kind_of_detector_are_not_trained(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    for name in ("panoptic_val.json", "panoptic_train.json", "dataset.json"):
        (root / name).unlink()
    made(root, detector="deformable")
    assert load(NAME).train_panoptic is None


@pytest.mark.parametrize("like", ["demo", "smoke", "coco"])
def test_panoptic_with_val_for_every_recipe(tmp_path: Path, params: Path, like: str) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    made(root, like=like)
    profile = load(NAME)
    assert profile.data.folder is not None
    assert profile.data.folder.val is not None
    assert profile.data.folder.val.panoptic_masks == "panoptic_val"
    assert profile.train_panoptic is not None
    study = profile.studies.evaluating["instance-count"]
    assert isinstance(study, InstanceCountConfig)
    assert (study.classes, study.grid) == (None, 3), "no class of the recipe's own data; 10 queries"
    text = (params / f"{NAME}.yaml").read_text()
    assert text.startswith(f"# This profile has the dataset in {root}, the recipe of {like}.yaml")
    assert "# dataloader workers of each rank process" in text, "comments stay"
    assert "\n\n\n" not in text


@pytest.mark.parametrize("like", ["demo", "coco"])
@pytest.mark.parametrize("detector", ["deformable", "faster-rcnn", "faster-rcnn-dc5", "faster-rcnn-plus"])
def test_another_detector_than_the_recipes_own(tmp_path: Path, params: Path, detector: str, like: str) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    adopted = made(root, like=like, detector=detector)
    shown = io.StringIO()
    Console(file=shown, width=100).print(summary_table(adopted.paths.profile, adopted.content, adopted.statistics, adopted.deep))
    summary = "deformable, 10 queries" if detector == "deformable" else "faster_rcnn "
    assert re.search("detector +│ " + summary, shown.getvalue())
    profile, recipe = load(NAME), settings.variants(load(like), "baselines")[detector]
    assert profile.detector == (
        dataclasses.replace(recipe.detector, queries=10) if isinstance(recipe.detector, DeformableConfig) else recipe.detector
    )
    assert profile.train_detection.loss == recipe.train_detection.loss
    assert profile.train_detection.optimizer == recipe.train_detection.optimizer
    assert profile.train_panoptic is None
    text = (params / f"{NAME}.yaml").read_text()
    assert "train_detection." not in text, "keys stand in their sections"
    assert "  stages: [" in text
    assert "no_object" not in text, "nor in a comment on another loss"


def test_a_detector_that_is_not_known_or_is_the_checkpoints(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    demo = read_parameters(params / "demo.yaml")
    known = ", ".join(demo["studies"]["training"]["baselines"]["variants"])
    with pytest.raises(
        ConfigError, match=rf"a variant of training\.baselines in .*demo\.studies\.yaml \({known}\), found 'yolo'"
    ):
        made(root, detector="yolo")
    with pytest.raises(ConfigError, match="--detector: expected no --checkpoint, because a checkpoint has its own detector"):
        made(root, detector="deformable", start=Start("x.pth", None))
    made(root)
    with pytest.raises(ConfigError, match=r"training\.baselines in .* \(none\), found 'deformable'"):
        adoption.adopt(root, "another", like=NAME, val_share=0.25, detector="deformable")


@pytest.mark.parametrize("like", ["demo", "coco"])
def test_a_checkpoint_of_deformable_detr_gets_the_recipe_of_its_kind(tmp_path: Path, params: Path, like: str) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    torch.save({"model": deformable.published(deformable.TWO_STAGE)}, tmp_path / "two_stage.pth")
    made(root, like=like, start=Start(str(tmp_path / "two_stage.pth"), None))
    profile, recipe = load(NAME), settings.variants(load(like), "baselines")["deformable"]
    assert profile.detector == dataclasses.replace(deformable.TWO_STAGE, queries=300)
    assert profile.train_detection.init is not None
    assert profile.train_detection.loss == recipe.train_detection.loss
    assert profile.train_detection.optimizer == recipe.train_detection.optimizer
    assert profile.train_panoptic is None
    assert yaml.safe_load((params / NAME / "profile.yaml").read_text())["kind"] == "deformable"


def test_a_checkpoint_of_a_kind_that_the_recipe_lacks_is_refused(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    made(root)  # which has no study of baselines
    torch.save({"model": deformable.published()}, tmp_path / "a.pth")
    expected = "--checkpoint: expected a detector of the profile's kind 'detr', or of a kind in training.baselines in "
    with pytest.raises(ConfigError, match=rf"{expected}.*{NAME}\.studies\.yaml, whose recipe fits it, found 'deformable'"):
        adoption.adopt(root, "another", like=NAME, val_share=0.25, start=Start(str(tmp_path / "a.pth"), None))


def test_a_recipe_that_makes_no_sense_is_told_before_any_work(tmp_path: Path, params: Path) -> None:
    recipe, studies = ((params / f"demo{end}").read_text() for end in (".yaml", ".studies.yaml"))
    for name, texts in {
        "torn": (recipe[: len(recipe) // 2], studies),
        "torn-studies": (recipe, studies[: len(studies) // 2]),
        "other": (recipe, studies.replace("train_detection.loss:", "train_detection.los:")),
    }.items():
        for end, text in zip((".yaml", ".studies.yaml"), texts, strict=True):
            (params / f"{name}{end}").write_text(text)
    for like, message in (
        ("torn", r"torn\.yaml"),
        ("torn-studies", r"torn-studies\.studies\.yaml"),
        ("other", r"other\.studies\.yaml: training\.baselines\.variants\.deformable: train_detection\.los"),
    ):
        with pytest.raises(ConfigError, match=message):
            made(tmp_path / "no such folder", like=like, detector="deformable")
    assert not (params / NAME).exists()


def test_a_profile_is_never_overwritten(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    made(root)
    before = (params / f"{NAME}.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"--name: .*{NAME}\.yaml and .*{NAME} exist; choose another name, or remove them"):
        made(root, like="coco")
    for end in (".yaml", ".studies.yaml"):
        (params / f"{NAME}{end}").unlink()
    with pytest.raises(ConfigError, match=rf"--name: .*{NAME} exists; choose another name, or remove .*{NAME}"):
        made(root)
    assert not (params / f"{NAME}.yaml").exists()
    assert before


def test_the_studies_are_copied_with_new_sizes(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    made(root)
    studies = (params / f"{NAME}.studies.yaml").read_text()
    assert studies.startswith(f"# The studies of the profile {NAME}, copied from those of demo.yaml with new sizes.\nevaluating:")
    assert studies.endswith("\n\ntraining: {} # docs/studies.md says how to write a study of your own\n")
    assert "demo.yaml" not in studies.partition("\n")[2], "the copied comment on the training studies is not about this profile"
    assert list(load(NAME).studies.evaluating) == list(load("demo").studies.evaluating)


def test_a_profile_is_written_whole_or_not_at_all(tmp_path: Path, params: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    before = set(params.rglob("*"))
    monkeypatch.setattr("flows.new_profile.adoption.require_new", lambda new, dataset: None)
    (params / f"{NAME}.studies.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=rf"--name: .*{NAME}\.studies\.yaml exists; choose another name"):
        made(root)
    assert set(params.rglob("*")) == before | {params / f"{NAME}.studies.yaml"}
    assert (params / f"{NAME}.studies.yaml").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", ".x"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, params: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        adoption.adopt(tmp_path, name, "demo", 0.2)


def test_a_folder_that_is_no_dataset_leaves_nothing(tmp_path: Path, params: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DatasetError, match=r"expected COCO's annotation files, YOLO's data\.yaml.* Pascal VOC's Annotations.*, found none"
    ):
        made(tmp_path / "empty")
    with pytest.raises(DatasetError, match="expected a dataset folder"):
        made(tmp_path / "nowhere")
    assert not (params / NAME).exists()


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), (shade, 0, 0)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns an empty folder for a dataset."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("train", "description", "expected"),
    [
        ("images/train", "train: images/train\n", ("images/train", "labels/train")),
        ("train/images", "train: ../train/images\n", ("train/images", "train/labels")),
        ("images/train", "", ("images/train", "labels/train")),
    ],
)
def test_yolo_layouts(folder: Path, train: str, description: str, expected: tuple[str, str]) -> None:
    picture(folder / train / "a.jpg")
    (folder / expected[1]).mkdir(parents=True)
    (folder / "data.yaml").write_text(description + "names:\n  0: cat\n  1: dog\n")
    section = dataset_layout.find_layout(folder, 0.3).section
    assert (section["train"]["images"], section["train"]["instances"]) == expected
    assert (section["format"], section["val"], section["val_share"]) == ("yolo", None, 0.3)
    assert yolo_layout.yolo_set(folder).names == ("cat", "dog")
    for place in expected:
        picture(folder / place.replace("train", "val" if "images/" in train else "valid") / "b.jpg")
    assert dataset_layout.find_layout(folder, 0.3).section["val_share"] is None


def test_yolo_to_a_profile(folder: Path, params: Path) -> None:
    for name in "abcdef":
        picture(folder / "images" / "train" / f"{name}.jpg", ord(name))
        (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / "train" / f"{name}.txt").write_text("1 .5 .5 .2 .2\n")
    (folder / "data.yaml").write_text("names: [cat, dog]\n")
    train, val = (statistics.classes for statistics in made(folder).statistics.values())
    assert train["cat"] == val["cat"] == 0
    assert (train["dog"] + val["dog"], val["dog"]) in ((6, 1), (6, 2))


def test_voc_layouts(folder: Path) -> None:
    picture(folder / "JPEGImages" / "a.jpg")
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "a.xml").write_text("<annotation/>")
    section = dataset_layout.find_layout(folder, 0.2).section
    assert (section["format"], section["train"]["instances"], section["val"]) == ("voc", "Annotations", None)
    for split in ("train", "val"):
        (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("a\n" if split == "train" else "b\n")
    assert dataset_layout.find_layout(folder, 0.2).section["val"]["instances"] == "ImageSets/Main/val.txt"


@pytest.mark.parametrize(
    ("train", "val", "images"),
    [
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json", ("train2017", "val2017")),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json", ("train", "valid")),
        ("train.json", "val.json", ("pictures/all", "pictures/all")),
    ],
)
def test_coco_layouts(folder: Path, train: str, val: str, images: tuple[str, str]) -> None:
    for file, place in ((train, images[0]), (val, images[1])):
        picture(folder / place / "1.jpg")
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps({"images": [{"file_name": "1.jpg"}], "annotations": [], "categories": []}))
    for other in ("captions_train2017.json", "person_keypoints_train2017.json", "instances_test.json"):
        (folder / "annotations").mkdir(exist_ok=True)
        lists = {"images": [{"file_name": "1.jpg"}], "annotations": []}
        content = lists if "captions" in other else lists | {"categories": []}
        (folder / "annotations" / other).write_text(json.dumps(content))
    if not train.startswith("annotations"):
        (folder / "annotations" / "person_keypoints_train2017.json").unlink()
    section = dataset_layout.find_layout(folder, 0.2).section
    assert (section["train"]["instances"], section["val"]["instances"]) == (train, val)
    assert (section["train"]["images"], section["val"]["images"]) == images


def test_two_files_for_one_split_are_not_guessed_between(folder: Path) -> None:
    picture(folder / "1.jpg")
    for name in ("train_a.json", "train_b.json"):
        (folder / name).write_text(json.dumps({"images": [{"file_name": "1.jpg"}], "annotations": [], "categories": []}))
    with pytest.raises(DatasetError, match=r"expected one annotation file for each split, .*train_a\.json, .*train_b\.json"):
        dataset_layout.find_layout(folder, 0.2)
