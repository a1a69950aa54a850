"""Folders in other formats or without a validation split: the content of the annotation files that the project writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hotcoco
import pytest
from PIL import Image

from detr_core.check.conversion import unreadable_images
from detr_core.check.entries import check_entries
from detr_core.config import ConfigError, build
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError, read_dataset
from detr_core.sources.config import FolderConfig
from detr_core.sources.folder import write_folder_dataset
from detr_core.sources.formats.voc import read_voc
from detr_core.sources.formats.yolo import YoloSet, read_yolo
from detr_core.sources.formats.yolo_rows import Row, decided_labels
from tests.check.datasets import write_whole

YOLO = SplitConfig("images", "labels", None, None)


def from_yolo(root: Path, names: tuple[str, ...] = ("x", "y"), **options: Any) -> dict[str, Any]:
    """Returns the content of the only split of `yolo`."""
    described = YoloSet("data.yaml", names, options.get("keypoints"))
    return read_yolo(root, {"train": YOLO}, described, options.get("labels"))["train"]


def config(**values: Any) -> FolderConfig:
    split = {"images": "images", "instances": "labels", "panoptic": None, "panoptic_masks": None}
    content = {"root": "unused", "format": "yolo", "train": split, "val": None, "val_share": 0.5} | values
    return build(FolderConfig, content, "x.yaml")


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Returns a YOLO dataset of four images of 40 x 20 pixels.

    An EXIF entry rotates b, the label file of c is empty, and d has none.
    """
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
    content = from_yolo(yolo)
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
    ours = from_yolo(yolo)
    assert [entry["bbox"] for entry in ours["annotations"]] == [entry["bbox"] for entry in theirs["annotations"]]


def test_yolo_polygons(yolo: Path) -> None:
    (yolo / "labels" / "a.txt").write_text("0 0.1 0.2 0.5 0.2 0.5 0.6 0.3 0.3")
    polygon = from_yolo(yolo)["annotations"][0]
    assert polygon["bbox"] == pytest.approx([4, 4, 16, 8])
    assert polygon["segmentation"] == [pytest.approx([4, 4, 20, 4, 20, 12, 12, 6])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 .5 .5 .1 .1", "expected a class from 0 to 1, found 2"),
        ("-1 .5 .5 .1 .1", "expected a class from 0 to 1, found -1"),
        ("0.5 .5 .5 .1 .1", "expected a class from 0 to 1, found 0.5"),
        ("inf .5 .5 .1 .1", "expected a class from 0 to 1, found inf"),
        ("0 nan .5 .5 .5", "expected finite numbers, found '0 nan .5 .5 .5'"),
        ("0 1e308 .5 .5 .5", "expected coordinates from 0 to 1, found '0 1e308 .5 .5 .5'"),
        (
            "0 .5 .5",
            "expected `class cx cy w h`, and at most a confidence and a track id after the box, found 3 columns: '0 .5 .5'",
        ),
        ("x .5 .5 .1 .1", "expected a class and coordinates as numbers, found 'x .5 .5 .1 .1'"),
        ("0,.5,.5,.1,.1", "expected a class and coordinates as numbers, found '0,.5,.5,.1,.1'"),
    ],
)
def test_a_row_that_is_none_stays_for_the_check_to_find(yolo: Path, line: str, message: str) -> None:
    (yolo / "labels" / "a.txt").write_text(f"1 .5 .5 .5 .5\n\n{line}\n")
    content = from_yolo(yolo)
    whole, broken, of_b = content["annotations"]
    assert broken["conversion_fault"] == f"labels/a.txt: line 3: {message}"
    assert [entry["id"] for entry in (whole, broken, of_b)] == [1, 2, 3]
    findings = check_entries(content, "train", "instances").findings
    assert [(finding.place, finding.leaves, finding.detail) for finding in findings] == [
        (1, "object", f"labels/a.txt: line 3: {message}")
    ]


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (["0 .5 .5 .1 .1"], "boxes"),
        (["0 .5 .5"], "boxes"),
        (["0.0 .5 .5 .1 .1"], "boxes"),
        (["0 .5 .5 .1 .1", "0 .1 .1 .2 .1 .2 .3 .15 .35 .1 .2"], "polygons"),
        (["0 .1 .1 .2 .1 .2 .3", "0 .1 .1 .2 .1 .2 .3 .15 .35 .1 .2"], "polygons"),
        (["0 .1 .1 .4 .1 .4 .3 .1 .3"] * 3, "polygons"),
        (["0 .6 .5 .7 .6 .6 .7 .5 .6"] * 3, "polygons"),
        (["0 .1 .8 .2 .7 .3 .8 .25 .9 .2 .95 .12 .9"] * 3, "polygons"),
        ([], "boxes"),
    ],
)
def test_how_rows_are_read_is_decided_over_the_whole_set(rows: list[str], labels: str) -> None:
    assert decided_labels([Row("x", tuple(row.split())) for row in rows], None) == labels


POSE = "0 .5 .5 .4 .4"


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (["0 .5 .5 .1 .1 .9"] * 2, "a.txt: line 1: .*, found 6 columns"),
        (["0 .5 .5 .1 .1 .9 7"] * 2, "a.txt: line 1: .*, found 7 columns"),
        (["0 .5 .5 .1 .1", "0 .5 .5 .1 .1 .9 7"], "a.txt: line 2: .*, found 7 columns"),
        (["0 .5 .5 .1 .1 .9", "0 .5 .5 .1 .1 .9 7"], "a.txt: line 1: .*, found 6 columns"),
        (["0 .1 .1 .2 .1 .2 .3 .15 .35", "0 .5 .5 .1 .1 .9 .3 .4"], "a.txt: line 2: .*, found 8 columns"),
        ([f"{POSE} .4 .4 .6 .6"] * 3, "a.txt: line 1: .*, found 9 columns, which look like a box with keypoints"),
        ([f"{POSE} .4 .4 .6 .6 0 0"] * 3, "found 11 columns, which look like"),
        ([f"{POSE} .4 .4 2 .6 .6 1 .5 .5 2 0 0 0"] * 3, "found 17 columns, which look like"),
        ([POSE + " .4 .4 2" * 17] * 2, "found 56 columns"),
    ],
)
def test_rows_that_can_be_something_else_are_never_polygons(yolo: Path, rows: list[str], columns: str) -> None:
    (yolo / "labels" / "a.txt").write_text("\n".join(rows))
    (yolo / "labels" / "b.txt").unlink()
    with pytest.raises(DatasetError, match=columns) as raised:
        from_yolo(yolo)
    assert "`--labels boxes`, `--labels polygons` or `--labels keypoints`" in str(raised.value)


def test_keypoints_are_left_out_and_told(yolo: Path) -> None:
    (yolo / "labels" / "a.txt").write_text(f"{POSE} .1 .1 2 .2 .2 2\n")
    (yolo / "labels" / "b.txt").write_text(f"{POSE} .1 .1 2 .2 .2\n")
    with pytest.raises(DatasetError, match=r"labels/b\.txt: line 1: expected 11 columns, .*\(kpt_shape\), found 10 columns; "):
        from_yolo(yolo, keypoints=(2, 3))
    content = from_yolo(yolo, keypoints=(2, 3), labels="keypoints")
    assert content["annotations"][0]["bbox"] == pytest.approx([12, 6, 16, 8])
    findings = [(finding.kind, finding.file, finding.detail) for finding in check_entries(content, "val", "instances").findings]
    assert findings == [
        ("object_entry", "b.jpg", "labels/b.txt: line 1: expected `class cx cy w h` and 2 x 3 columns of keypoints (kpt_shape), "
         f"found 10 columns: '{POSE} .1 .1 2 .2 .2'"),
        ("columns_left_out", "a.png", "6 columns of keypoints"),
    ]  # fmt: skip


def test_labels_say_how_rows_are_read(yolo: Path) -> None:
    (yolo / "labels" / "a.txt").write_text("0 .5 .5 .5 .5 .9 3")
    boxes, polygons, keypoints = (
        from_yolo(yolo, labels=labels)["annotations"][0] for labels in ("boxes", "polygons", "keypoints")
    )
    assert boxes["bbox"] == keypoints["bbox"] == [10, 5, 20, 10]
    assert boxes["conversion_dropped"] == "2 columns after the box (a confidence or a track id)"
    assert polygons["segmentation"] == [pytest.approx([20, 10, 20, 10, 36, 60])]


def test_label_files_that_belong_to_no_image_are_found(yolo: Path) -> None:
    (yolo / "labels" / "e.txt").write_text("0 .5 .5 .5 .5\n1 .5 .5 .5 .5\n")
    (yolo / "labels" / "classes.txt").write_text("x\ny\n")
    (yolo / "labels" / "._a.txt").write_text("0 .5 .5 .5 .5\n")
    findings = check_entries(from_yolo(yolo), "train", "instances").findings
    assert [(finding.kind, finding.detail) for finding in findings] == [
        ("object_without_image", f"labels/e.txt: line {line}: no image has this name, 'e'") for line in (1, 2)
    ]


def test_images_that_cannot_be_converted_stay_for_the_check_to_find(yolo: Path) -> None:
    Image.new("RGB", (40, 20)).save(yolo / "images" / "a.jpg")  # whose labels are in a.txt?
    (yolo / "labels" / "c.txt").unlink()
    (yolo / "labels" / "c.txt").mkdir()
    (yolo / "images" / "d.jpg").write_bytes(b"")
    (yolo / "images" / "._d.jpg").write_bytes(b"x")
    (yolo / "images" / "Thumbs.db").write_bytes(b"x")
    content = from_yolo(yolo)
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "a.png", "b.jpg", "c.webp", "d.jpg"]
    findings = check_entries(content, "train", "instances").findings
    assert [(finding.leaves, finding.file) for finding in findings] == [("image", "a.png"), ("image", "c.webp")]
    assert findings[0].detail == ("a.png and a.jpg have the same label file, so it is unclear which image the labels describe")
    assert "labels/c.txt: expected a readable label file" in findings[1].detail
    assert [finding.file for finding in unreadable_images(content, "train", "instances")] == ["d.jpg"]


def test_a_split_without_any_label_file_is_refused(yolo: Path) -> None:
    for file in (yolo / "labels").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match=r"expected a label file such as labels/a\.txt for an image, found none for any of 4"):
        from_yolo(yolo)


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
    write_folder_dataset(config(format="voc", val_share=None, **splits), voc, 0, None, tmp_path / "out")
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
def test_voc_objects_that_are_none_are_found(voc: Path, objects: str, detail: str) -> None:
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
    write_folder_dataset(config(format="coco", train=train, val_share=0.25), root, 3, None, out)
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
        ({"val_share": None}, "val_share: expected a share if `val` is null"),
        ({"val_share": 1.0}, "val_share: expected between 0 and 1"),
        ({"train": split}, "train: expected only `instances` with format 'yolo'"),
    ):
        with pytest.raises(ConfigError, match=message):
            config(**values)
