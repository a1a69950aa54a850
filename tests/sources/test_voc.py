"""Folders in Pascal VOC's format: the content of the annotation files that the project writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hotcoco
import pytest
from PIL import Image

from detr_core.check.entries import check_entries
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import SplitConfig
from detr_core.data.splits import read_dataset
from detr_core.sources.folder import write_folder_dataset
from detr_core.sources.formats.voc import read_voc
from tests.sources.folders import folder_config


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Returns a Pascal VOC dataset of two images with one object each, of which the second is marked as difficult."""
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
    write_folder_dataset(folder_config(format="voc", val_share=None, **splits), voc, 0, None, tmp_path / "out")
    train, val = (
        CocoDataset(split, "instances", False, None, 0) for split in read_dataset(tmp_path / "out").values()
    )  # fmt: skip
    assert [category.name for category in train.categories] == ["cat", "dog"] == [category.name for category in val.categories]
    assert train[0].target.boxes.tolist() == [[0.5, 0.5, 1, 1]]
    assert len(val[0].target.boxes) == 0, "difficult objects train nothing"


def from_voc(root: Path, instances: str = "Annotations") -> dict[str, Any]:
    return read_voc(root, {"train": SplitConfig("JPEGImages", instances, None, None)})["train"]


def test_hotcoco_reads_the_same_boxes_of_voc(voc: Path) -> None:
    ours, theirs = from_voc(voc), hotcoco.COCO.from_voc(str(voc)).dataset
    for field in ("bbox", "category_id", "iscrowd", "area"):
        assert [entry[field] for entry in ours["annotations"]] == [entry[field] for entry in theirs["annotations"]]


def details(content: dict[str, Any]) -> list[tuple[str | None, str]]:
    return [(finding.leaves, finding.detail) for finding in check_entries(content, "train", "instances").findings]


def test_voc_files_that_cannot_be_converted_stay_for_the_check_to_find(voc: Path) -> None:
    (voc / "ImageSets/Main/train.txt").write_text("a\nz\n")
    content = from_voc(voc, "ImageSets/Main/train.txt")
    assert details(content) == [("image", "ImageSets/Main/train.txt: 'z' has no Annotations/z.xml")]
    (voc / "Annotations" / "a.xml").write_text("<annotation")
    assert details(from_voc(voc)) == [("image", "Annotations/a.xml: expected Pascal VOC's XML: unclosed token: line 1, column 0")]


@pytest.mark.parametrize(
    ("objects", "detail"),
    [
        ("<object><bndbox/></object>", "Annotations/b.xml: <object>: expected a <name>, found none"),
        ("<object><name>cat</name></object>", "Annotations/b.xml: <object> 'cat': expected a <bndbox>, found none"),
        (
            "<object><name>cat</name><bndbox><xmin>nan</xmin></bndbox></object>",
            "Annotations/b.xml: <object> 'cat': xmin: expected a number, found 'nan'",
        ),
    ],
)
def test_invalid_voc_objects_are_reported(voc: Path, objects: str, detail: str) -> None:
    size = "<size><width>40</width><height>20</height></size>"
    (voc / "Annotations" / "b.xml").write_text(f"<annotation><filename>b.jpg</filename>{size}{objects}</annotation>")
    assert details(from_voc(voc)) == [("object", detail)]


def test_voc_sizes_come_from_the_file_where_the_xml_has_none(voc: Path) -> None:
    for size in ("", "<size><width>0</width><height>0</height></size>", "<size><width>x</width></size>"):
        (voc / "Annotations" / "b.xml").write_text(f"<annotation>{size}</annotation>")
        entry = from_voc(voc)["images"][1]
        assert (entry["file_name"], entry["width"], entry["height"], entry["size_read_from_file"]) == ("b.jpg", 40, 20, True)


@pytest.mark.parametrize("filename", ["b", "b.png", "a.jpg", "C:\\photos\\b.jpg", "", "../b.jpg"])
def test_voc_images_have_the_name_of_their_xml(voc: Path, filename: str) -> None:
    size = "<size><width>40</width><height>20</height></size>"
    (voc / "Annotations" / "b.xml").write_text(f"<annotation><filename>{filename}</filename>{size}</annotation>")
    assert [image["file_name"] for image in from_voc(voc)["images"]] == ["a.jpg", "b.jpg"]


def test_voc_images_of_another_name_are_found_by_filename(voc: Path) -> None:
    (voc / "Annotations" / "b.xml").rename(voc / "Annotations" / "0002.xml")
    assert [image["file_name"] for image in from_voc(voc)["images"]] == ["b.jpg", "a.jpg"]


def test_voc_entities_are_never_expanded(voc: Path) -> None:
    declared = (
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotation><object><name>&e;</name></object></annotation>'
    )
    for encoding in ("utf-8", "utf-16"):
        (voc / "Annotations" / "b.xml").write_text(declared, encoding=encoding)
        ((leaves, detail),) = details(from_voc(voc))
        assert leaves == "image"
        assert "expected no document type and no entities, found a declaration" in detail
    (voc / "Annotations" / "b.xml").write_text("<annotation>" + "<object>" * 10_000)
    assert "expected elements nested at most 50 deep" in details(from_voc(voc))[0][1]
