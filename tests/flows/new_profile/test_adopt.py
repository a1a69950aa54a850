"""The command `adopt` writes a profile for a folder in any layout, and never changes the folder or other files."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from detr_core.config import ConfigError
from detr_core.data.splits import DatasetError
from detr_core.model.deformable.config import DeformableConfig
from detr_core.studies.measurements.instance_count_config import InstanceCountConfig
from flows.new_profile import adoption
from flows.new_profile.recipe import Start
from flows.new_profile.summary import summary_table
from flows.profile import settings
from flows.profile.paths import ROOT
from flows.profile.settings import load
from tests.check.datasets import change, write_whole
from tests.conftest import read_parameters
from tests.flows.new_profile.test_layouts import picture

NAME = "adopted-by-a-test"


def adopt(folder: Path, **options: object) -> adoption.NewProfile:
    arguments = {"like": "demo", "val_share": 0.25} | options
    return adoption.adopt(folder, NAME, **arguments)  # type: ignore[arg-type]


def test_a_dataset_of_boxes_without_a_val_split_gets_a_profile_without_masks(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "cells")
    for name in ("instances_val.json", "panoptic_val.json", "panoptic_train.json", "dataset.json"):
        (root / name).unlink()
    change(root, "train", "instances", without_masks)
    (root / "instances_train.json").rename(root / "annotations.json")
    adopted = adopt(root)
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
    assert yaml.safe_load((params / NAME / "profile.yaml").read_text()) == {
        "profile": NAME,
        "kind": "detr",
        "builds_on": "transformer",
        "wd": "../..",
    }
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
    adopted = adopt(root, like=like)
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
    adopt(root)
    assert load(NAME).train_panoptic is None


def test_instance_masks_of_another_kind_of_detector_are_not_trained(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    for name in ("panoptic_val.json", "panoptic_train.json", "dataset.json"):
        (root / name).unlink()
    adopt(root, detector="deformable")
    assert load(NAME).train_panoptic is None


@pytest.mark.parametrize("like", ["demo", "smoke", "coco"])
def test_a_panoptic_dataset_with_a_val_split_gets_a_mask_head_with_every_recipe(tmp_path: Path, params: Path, like: str) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    adopt(root, like=like)
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
def test_another_detector_than_the_recipes_gets_the_settings_of_its_variant(
    tmp_path: Path, params: Path, detector: str, like: str
) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    adopted = adopt(root, like=like, detector=detector)
    shown = io.StringIO()
    Console(file=shown, width=100).print(summary_table(adopted.paths.profile, adopted.content, adopted.statistics, adopted.deep))
    summary = "deformable, 10 queries" if detector == "deformable" else "faster_rcnn "
    assert re.search("detector +│ " + summary, shown.getvalue())
    profile, recipe = load(NAME), settings.variants(load(like), "baselines")[detector]
    assert profile.detector == (
        dataclasses.replace(recipe.detector, queries=10) if isinstance(recipe.detector, DeformableConfig) else recipe.detector
    )
    assert profile.train_detection.loss == recipe.train_detection.loss
    optimizer, factor = recipe.train_detection.optimizer, profile.train_detection.batch_size / recipe.train_detection.batch_size
    if optimizer.kind == "sgd":  # its rates follow the batch size
        assert profile.train_detection.optimizer.lr == pytest.approx(factor * optimizer.lr, rel=0.05)
        optimizer = dataclasses.replace(
            optimizer, lr=profile.train_detection.optimizer.lr, backbone_lr=profile.train_detection.optimizer.backbone_lr
        )
    assert profile.train_detection.optimizer == optimizer
    assert profile.train_panoptic is None
    text = (params / f"{NAME}.yaml").read_text()
    assert "train_detection." not in text, "keys stand in their sections"
    assert "  stages: [" in text
    assert "no_object" not in text, "nor in a comment on another loss"


def test_an_unknown_detector_and_one_beside_a_checkpoint_are_refused(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    demo = read_parameters(params / "demo.yaml")
    known = ", ".join(["panoptic-fpn", "upsnet", "upsnet-m", *demo["studies"]["training"]["baselines"]["variants"]])
    expected = rf"a variant of training\.baselines or training\.panoptic in .*demo\.studies\.yaml \({known}\), found 'yolo'"
    with pytest.raises(ConfigError, match=expected):
        adopt(root, detector="yolo")
    with pytest.raises(ConfigError, match="--detector: expected no --checkpoint, because a checkpoint has its own detector"):
        adopt(root, detector="deformable", start=Start("x.pth", None))
    adopt(root)
    with pytest.raises(ConfigError, match=r"training\.panoptic in .* \(none\), found 'deformable'"):
        adoption.adopt(root, "another", like=NAME, val_share=0.25, detector="deformable")


def test_an_invalid_recipe_is_refused_before_any_work(tmp_path: Path, params: Path) -> None:
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
            adopt(tmp_path / "no such folder", like=like, detector="deformable")
    assert not (params / NAME).exists()


def test_a_profile_is_never_overwritten(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    adopt(root)
    before = (params / f"{NAME}.yaml").read_bytes()
    with pytest.raises(ConfigError, match=rf"--name: .*{NAME}\.yaml and .*{NAME} exist; choose another name, or remove them"):
        adopt(root, like="coco")
    for end in (".yaml", ".studies.yaml"):
        (params / f"{NAME}{end}").unlink()
    with pytest.raises(ConfigError, match=rf"--name: .*{NAME} exists; choose another name, or remove .*{NAME}"):
        adopt(root)
    assert not (params / f"{NAME}.yaml").exists()
    assert before


def test_the_studies_are_copied_with_new_sizes(tmp_path: Path, params: Path) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    adopt(root)
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
        adopt(root)
    assert set(params.rglob("*")) == before | {params / f"{NAME}.studies.yaml"}
    assert (params / f"{NAME}.studies.yaml").read_text() == "mine"


def instances_only(root: Path) -> Path:
    """Removes the panoptic annotations of a dataset, and the description that names them; returns its folder."""
    for name in ("panoptic_val.json", "panoptic_train.json", "dataset.json"):
        (root / name).unlink()
    return root


def test_annotations_of_val_that_are_a_copy_of_those_of_train_are_named(tmp_path: Path, params: Path) -> None:
    root = instances_only(write_whole(tmp_path / "data"))
    assert not any("are a copy" in note for note in adopt(root).notes)
    shutil.copy(root / "instances_train.json", root / "instances_val.json")
    shutil.copytree(root / "train", root / "val", dirs_exist_ok=True)
    shutil.rmtree(params / NAME)
    for file in params.glob(f"{NAME}.*"):
        file.unlink()
    expected_start = (
        "the annotations of val are a copy of those of train (instances_val.json has the same content as instances_train.json)"
    )
    assert [note for note in adopt(root).notes if note.startswith(expected_start)]


@pytest.mark.parametrize("share", [float("nan"), 0.0, 1.0, -0.5])
def test_an_invalid_share_is_refused_even_if_there_is_a_val_split(tmp_path: Path, params: Path, share: float) -> None:
    root = write_whole(tmp_path / "data")
    with pytest.raises(ConfigError, match=f"--val-share: expected a share between 0 and 1, found {share}"):
        adopt(root, val_share=share)
    assert not (params / NAME).exists()


@pytest.mark.parametrize("name", ["", "  "])
def test_a_category_without_a_name_is_refused(tmp_path: Path, params: Path, name: str) -> None:
    root = instances_only(write_whole(tmp_path / "data"))
    change(root, "train", "instances", lambda coco: coco["categories"][0].update(name=name))
    expected_start = r"instances_train\.json: categories: .*expected a name for the category with id \d+, found "
    with pytest.raises(DatasetError, match=f"{expected_start}{name!r}"):
        adopt(root)
    assert not (params / NAME).exists()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A", ".x"])
def test_an_invalid_profile_name_is_refused(tmp_path: Path, params: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        adoption.adopt(tmp_path, name, "demo", 0.2)


def test_a_folder_that_is_no_dataset_leaves_nothing(tmp_path: Path, params: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DatasetError, match=r"expected COCO's annotation files, YOLO's data\.yaml.* Pascal VOC's Annotations.*, found none"
    ):
        adopt(tmp_path / "empty")
    with pytest.raises(DatasetError, match="expected a dataset folder"):
        adopt(tmp_path / "nowhere")
    assert not (params / NAME).exists()


def test_a_yolo_dataset_gets_a_profile(folder: Path, params: Path) -> None:
    for name in "abcdef":
        picture(folder / "images" / "train" / f"{name}.jpg", ord(name))
        (folder / "labels" / "train").mkdir(parents=True, exist_ok=True)
        (folder / "labels" / "train" / f"{name}.txt").write_text("1 .5 .5 .2 .2\n")
    (folder / "data.yaml").write_text("names: [cat, dog]\n")
    train, val = (statistics.classes for statistics in adopt(folder).statistics.values())
    assert train["cat"] == val["cat"] == 0
    assert (train["dog"] + val["dog"], val["dog"]) in ((6, 1), (6, 2))
