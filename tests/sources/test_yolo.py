"""Folders in YOLO's format: the content of the annotation files that the project writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hotcoco
import pytest
from PIL import Image

from detr_core.check.conversion import unreadable_images
from detr_core.check.entries import check_entries
from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError
from detr_core.sources.formats.yolo import YoloSet, read_yolo
from detr_core.sources.formats.yolo_rows import Row, decided_labels

YOLO = SplitConfig("images", "labels", None, None)


def from_yolo(root: Path, names: tuple[str, ...] = ("x", "y"), **options: Any) -> dict[str, Any]:
    """Returns the content of the only split of `yolo`."""
    described = YoloSet("data.yaml", names, options.get("keypoints"))
    return read_yolo(root, {"train": YOLO}, described, options.get("labels"))["train"]


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


def test_yolo_labels_are_converted(yolo: Path) -> None:
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


def test_yolo_polygons_are_converted(yolo: Path) -> None:
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
def test_an_invalid_row_is_kept_for_the_check(yolo: Path, line: str, message: str) -> None:
    (yolo / "labels" / "a.txt").write_text(f"1 .5 .5 .5 .5\n\n{line}\n")
    content = from_yolo(yolo)
    whole, broken, of_b = content["annotations"]
    assert broken["conversion_fault"] == f"labels/a.txt: line 3: {message}"
    assert [entry["id"] for entry in (whole, broken, of_b)] == [1, 2, 3]
    findings = check_entries(content, "train", "instances").findings
    assert [(finding.entry_index, finding.leaves, finding.detail) for finding in findings] == [
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


def test_keypoints_are_left_out_and_reported(yolo: Path) -> None:
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
