"""The layouts of YOLO, Pascal VOC and COCO in which `adopt` finds a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from detr_core.data.splits import DatasetError
from flows.new_profile import dataset_layout, yolo_layout


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), (shade, 0, 0)).save(path)


@pytest.mark.parametrize(
    ("train", "description", "expected"),
    [
        ("images/train", "train: images/train\n", ("images/train", "labels/train")),
        ("train/images", "train: ../train/images\n", ("train/images", "train/labels")),
        ("images/train", "", ("images/train", "labels/train")),
    ],
)
def test_yolo_layouts_are_found(folder: Path, train: str, description: str, expected: tuple[str, str]) -> None:
    picture(folder / train / "a.jpg")
    (folder / expected[1]).mkdir(parents=True)
    (folder / "data.yaml").write_text(description + "names:\n  0: cat\n  1: dog\n")
    section = dataset_layout.find_layout(folder, 0.3).section
    assert (section["train"]["images"], section["train"]["instances"]) == expected
    assert (section["format"], section["val"], section["val_share"]) == ("yolo", None, 0.3)
    assert yolo_layout.yolo_set(folder).names == ("cat", "dog")
    for subfolder in expected:
        picture(folder / subfolder.replace("train", "val" if "images/" in train else "valid") / "b.jpg")
    assert dataset_layout.find_layout(folder, 0.3).section["val_share"] is None


def test_voc_layouts_are_found(folder: Path) -> None:
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
def test_coco_layouts_are_found(folder: Path, train: str, val: str, images: tuple[str, str]) -> None:
    for file, subfolder in ((train, images[0]), (val, images[1])):
        picture(folder / subfolder / "1.jpg")
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
