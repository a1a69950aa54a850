"""Folders of other formats and without a validation split: what the annotation files of our own say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hotcoco
import pytest
from PIL import Image

from detr_core.config import ConfigError, build
from detr_core.data.coco import CocoDataset
from detr_core.data.config import FolderConfig, SplitConfig
from detr_core.data.dataset import DatasetError, read_dataset
from detr_core.data.folder import write_folder_dataset
from detr_core.data.formats import from_voc, from_yolo
from tests.check.datasets import write_whole

YOLO = SplitConfig("images", "labels", None, None)


def config(**values: Any) -> FolderConfig:
    split = {"images": "images", "instances": "labels", "panoptic": None, "panoptic_masks": None}
    content = {"root": "unused", "format": "yolo", "train": split, "val": None, "val_share": 0.5} | values
    return build(FolderConfig, content, "x.yaml")


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Four images, 40 x 20 pixels; b is turned by its EXIF entry, c has an empty file of labels, d has none."""
    root = tmp_path / "yolo"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(root / "images" / "a.png")
    Image.new("RGB", (40, 20)).save(root / "images" / "b.jpg", exif=exif)
    Image.new("RGB", (40, 20)).save(root / "images" / "c.webp")
    Image.new("RGB", (40, 20)).save(root / "images" / "d.jpg")
    (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n\n1 0.1 0.1 0.2 0.2\n")
    (root / "labels" / "b.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (root / "labels" / "c.txt").write_text("")
    return root


def test_yolo_labels(yolo: Path) -> None:
    content = from_yolo(yolo, YOLO, ["x", "y"])
    assert [(image["file_name"], image["height"], image["width"]) for image in content["images"]] == [
        ("a.png", 20, 40),
        ("b.jpg", 40, 20),
        ("c.webp", 20, 40),
        ("d.jpg", 20, 40),
    ]
    objects = [(entry["image_id"], entry["category_id"], entry["bbox"], entry["area"]) for entry in content["annotations"]]
    assert objects == [
        (1, 1, [10, 5, 20, 10], 200),
        (1, 2, [0, 0, 8, 4], 32),
        (2, 2, [5, 10, 10, 20], 200),
    ]
    assert content["categories"] == [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]


def test_hotcoco_reads_the_same_boxes(yolo: Path) -> None:
    for name in ("b.jpg", "c.webp", "d.jpg"):  # it wants every image labelled, and doesn't turn them
        (yolo / "images" / name).unlink()
        (yolo / "labels" / name).with_suffix(".txt").unlink(missing_ok=True)
    (yolo / "labels" / "data.yaml").write_text("names: ['x', 'y']\n")
    theirs = hotcoco.COCO.from_yolo(str(yolo / "labels"), images_dir=str(yolo / "images")).dataset
    ours = from_yolo(yolo, YOLO, ["x", "y"])
    assert [entry["bbox"] for entry in ours["annotations"]] == [entry["bbox"] for entry in theirs["annotations"]]


def test_yolo_polygons(yolo: Path) -> None:
    (yolo / "labels" / "a.txt").write_text("0 0.1 0.2 0.5 0.2 0.5 0.6")
    polygon = from_yolo(yolo, YOLO, ["x", "y"])["annotations"][0]
    assert polygon["bbox"] == pytest.approx([4, 4, 16, 8])
    assert polygon["segmentation"] == [pytest.approx([4, 4, 20, 4, 20, 12])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 .5 .5 .1 .1", "line 1: expected a class from 0 to 1, found 2"),
        ("-1 .5 .5 .1 .1", "expected a class from 0"),
        ("0 nan .5 .5 .5", "expected `class cx cy w h` or a polygon"),
        ("0 .5 .5", "or a polygon"),
        ("0 .5 .5 .1 .1 .1", "or a polygon"),
        ("x .5 .5 .1 .1", "in numbers"),
    ],
)
def test_labels_that_are_none_are_named(yolo: Path, line: str, message: str) -> None:
    (yolo / "labels" / "a.txt").write_text(line)
    with pytest.raises(DatasetError, match=message) as raised:
        from_yolo(yolo, YOLO, ["x", "y"])
    assert "labels/a.txt" in str(raised.value)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "voc"
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for name, thing, difficult in (("a", "dog", 0), ("b", "cat", 1)):
        Image.new("RGB", (40, 20)).save(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><size><width>40</width><height>20</height><depth>3</depth></size>"
            f"<object><name>{thing}</name><difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>40</xmax><ymax>20</ymax></bndbox></object></annotation>"
        )
        (root / "ImageSets/Main" / f"{'train' if name == 'a' else 'val'}.txt").write_text(f"{name}\n")
    return root


def test_voc_lists_share_their_classes(voc: Path, tmp_path: Path) -> None:
    splits = {
        split: {"images": "JPEGImages", "instances": f"ImageSets/Main/{split}.txt", "panoptic": None, "panoptic_masks": None}
        for split in ("train", "val")
    }
    (tmp_path / "out").mkdir()
    write_folder_dataset(config(format="voc", val_share=None, **splits), voc, 0, (), tmp_path / "out")
    train, val = (
        CocoDataset(split, "instances", False, None, 0) for split in read_dataset(tmp_path / "out").values()
    )  # fmt: skip
    assert [category.name for category in train.categories] == ["cat", "dog"] == [category.name for category in val.categories]
    assert train[0].target.boxes.tolist() == [[0.5, 0.5, 1, 1]]
    assert len(val[0].target.boxes) == 0, "difficult objects train nothing"


def test_voc_annotations_that_are_none_are_named(voc: Path) -> None:
    split = SplitConfig("JPEGImages", "ImageSets/Main/train.txt", None, None)
    (voc / "ImageSets/Main/train.txt").write_text("a\nz\n")
    with pytest.raises(DatasetError, match=r"train\.txt: expected an annotation of every image, found none of 'z'"):
        from_voc(voc, split)
    (voc / "Annotations" / "a.xml").write_text("<annotation")
    with pytest.raises(DatasetError, match=r"Annotations: expected Pascal VOC's annotations: .*a\.xml"):
        from_voc(voc, split)


def test_a_split_by_share_is_written_beside_and_reads_images_in_place(tmp_path: Path) -> None:
    root, out = write_whole(tmp_path / "whole"), tmp_path / "out"
    out.mkdir()
    before = set(root.rglob("*"))
    train = {
        "images": "train",
        "instances": "instances_train.json",
        "panoptic": "panoptic_train.json",
        "panoptic_masks": "panoptic_train",
    }
    write_folder_dataset(config(format="coco", train=train, val_share=0.25), root, 3, (), out)
    assert set(root.rglob("*")) == before
    splits = read_dataset(out)
    ids = {}
    for name, split in splits.items():
        assert split.images == root / "train"
        things, segments = (CocoDataset(split, targets, True, None, 0) for targets in ("instances", "panoptic"))  # type: ignore[arg-type]
        assert things.image_ids == segments.image_ids
        assert [len(segments[index].target.labels) for index in range(len(segments))] == [2] * len(segments)
        ids[name] = set(things.image_ids)
    assert ids["train"] | ids["val"] == {1, 2, 3, 4}
    assert len(ids["val"]) == 1
    assert json.loads((out / "dataset.json").read_text())["annotations"] == "."


def test_a_folder_that_makes_no_sense_is_refused() -> None:
    split = {"images": "images", "instances": None, "panoptic": "p.json", "panoptic_masks": "p"}
    for values, message in (
        ({"val_share": None}, "val_share: expected a share where `val` is null"),
        ({"val_share": 1.0}, "val_share: expected between 0 and 1"),
        ({"train": split}, "train: expected `instances` alone with format 'yolo'"),
    ):
        with pytest.raises(ConfigError, match=message):
            config(**values)
