"""YOLO and Pascal VOC datasets as tools export them: each is read as its files state, or refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from detr_core.config import ConfigError, build
from detr_core.sources.config import FolderConfig
from detr_core.sources.folder import write_folder_dataset
from flows.new_profile.dataset_layout import find_layout
from flows.new_profile.yolo_layout import yolo_set
from tests.adopting import Outcome, adopt_and_check, sums
from tests.flows.new_profile.annotated_folders import splits, write_pictures, write_voc, write_yolo

Carry = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("case", "images", "note"),
    [
        ("02-yolo-pose", (24, 8), "path: ../datasets/x was not found"),
        ("04-yolo-list", (24, 8), ""),
        ("04b-yolo-txt", (8, 4), ""),
        ("09c-voc-spaces", (24, 8), ""),
        ("09e-voc-trainval-test", (24, 8), "the test set, ImageSets/Main/test.txt, is used for validation"),
    ],
)
def test_the_splits_of_the_files_are_obeyed_and_notes_are_printed(
    field: Path, outcome: Carry, case: str, images: tuple[int, int], note: str
) -> None:
    result = outcome(field / case / "set")
    assert (result.images, result.error) == ({"train/images": images[0], "val/images": images[1]}, "")
    objects = sums(result, "objects")
    assert (objects["supplied"], objects["used"]) == ((65, 65) if sum(images) == 32 else (24, 24))
    assert note in " ".join(result.notes)
    assert result.findings == ({"columns_left_out": 65} if "pose" in case else {})


def test_an_image_without_an_ending_in_its_xml_is_found_by_the_stem(field: Path, outcome: Carry) -> None:
    result = outcome(field / "09-voc-no-extension" / "set")
    assert (result.error, result.findings, sums(result, "objects")["used"]) == ("", {}, 65)


def test_tracker_output_is_refused_without_the_option_labels(field: Path, outcome: Carry, params: Path) -> None:
    root = field / "03-yolo-conf-id" / "set"
    refused = outcome(root)
    assert refused.error.startswith("labels/train/img001.txt: line 1: expected a box")
    assert "found 7 columns" in refused.error
    assert "`--labels boxes`, `--labels polygons` or `--labels keypoints`" in refused.error
    assert not refused.paths.data.exists()
    boxes = adopt_and_check(root, "tracked-boxes", params, labels="boxes")
    assert (boxes.error, boxes.findings, sums(boxes, "objects")["used"]) == ("", {"columns_left_out": 65}, 65)


def test_a_broken_image_stops_strict_and_is_left_out_by_lenient(field: Path, outcome: Carry) -> None:
    root = field / "15-yolo-broken-image" / "set"
    strict = outcome(root)
    assert "1 finding: an image file of 0 bytes; the first is in train, img003.jpg" in strict.error
    assert any("img003.jpg" in line for line in strict.notes)
    lenient = outcome(root, "lenient")
    assert (lenient.error, lenient.findings) == ("", {"image_empty": 1})
    assert sums(lenient, "images") == {"supplied": 32, "used": 31, "left_out": 1}
    assert sums(lenient, "objects") == {"supplied": 65, "used": 64, "left_out": 1}


def test_damaged_labels_stop_strict_and_are_left_out_by_lenient(field: Path, outcome: Carry, tmp_path: Path) -> None:
    yolo, voc = tmp_path / "yolo", tmp_path / "voc"
    shutil.copytree(field / "04-yolo-list" / "set", yolo)
    with (yolo / "labels/train/img001.txt").open("a") as file:
        file.write("0 .5 .5\n9 .5 .5 .1 .1\n")
    (yolo / "labels/val/nobody.txt").write_text("0 .5 .5 .1 .1\n")
    shutil.copytree(field / "09c-voc-spaces" / "set", voc)
    (voc / "Annotations/my photo 3.xml").write_bytes(b"\xff\xfe<annotation>")
    for root, line, kinds in (
        (yolo, "labels/train/img001.txt: line 3", {"object_entry": 1, "unknown_category": 1, "object_without_image": 1}),
        (voc, "Annotations/my photo 3.xml", {"image_labels": 1}),
    ):
        lenient = outcome(root, "lenient")
        assert any(line in note for note in lenient.notes)
        assert "annotations[" not in " ".join(lenient.notes), "these are places in COCO's files"
        assert (lenient.error, lenient.findings) == ("", kinds)
    assert "labels/train/img001.txt: line 3: expected `class cx cy w h`" in outcome(yolo).error


def test_an_image_without_usable_labels_or_pixels_takes_its_objects_with_it_in_every_number(
    folder: Path,
    outcome: Carry,
) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    write_pictures(folder / "more", seed=1)
    for number, name in ((1, "4"), (2, "5"), (3, "6")):
        (folder / f"more/{number}.png").rename(folder / f"JPEGImages/{name}.png")
    head, box = (
        "<annotation><size><width>40</width><height>20</height></size>",
        "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>",
    )
    for number in (1, 2, 3, 5, 6):
        labels = "" if number == 5 else f"<object><name>red</name><bndbox>{box}</bndbox></object>"
        (folder / f"Annotations/{number}.xml").write_text(f"{head}{labels}</annotation>")
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("1\n2\n3\n4\n5\n")
    (folder / "ImageSets/Main/val.txt").write_text("6\n")
    cut = folder / "JPEGImages/2.png"
    cut.write_bytes(cut.read_bytes()[:60])
    (folder / "JPEGImages/3.png").unlink()
    result = outcome(folder, "lenient")
    assert (result.error, result.findings) == ("", {"image_labels": 1, "image_missing": 1, "image_truncated": 1})
    findings = json.loads((result.paths.check / "findings.json").read_text())
    [without_labels] = [finding for finding in findings if finding["kind"] == "image_labels"]
    assert "'4' has no Annotations/4.xml" in without_labels["detail"]
    account = "account/train/instances"
    assert [result.metrics[f"{account}/images/{part}"] for part in ("supplied", "used", "left_out")] == [5, 2, 3]
    assert [result.metrics[f"{account}/objects/{part}"] for part in ("supplied", "used", "left_out")] == [3, 1, 2]
    assert [result.metrics[name] for name in ("train/images", "left_out/train/images")] == [2, 3]
    assert [result.metrics[name] for name in ("train/objects", "left_out/train/objects")] == [1, 2]


def test_labels_are_for_yolo_alone(folder: Path) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    with pytest.raises(ConfigError, match=r"--labels: expected only with a YOLO dataset, found a dataset in the format 'voc'"):
        find_layout(folder, 0.2, "boxes")


def test_missing_images_are_reported(folder: Path) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    (folder / "JPEGImages/2.png").unlink()
    assert "train: 1 of 3 images is missing, such as JPEGImages/2.png" in find_layout(folder, 0.2).notes
    shutil.rmtree(folder)
    write_yolo(folder, "train: a.txt\nval: images/b", "images/a", "images/b")
    (folder / "a.txt").write_text("images/a/1.png\nimages/a/7.png\nimages/a/8.png\n")
    assert "train: 2 of 3 images are missing, such as images/a/7.png" in find_layout(folder, 0.2).notes


def test_images_without_labels_are_reported(folder: Path) -> None:
    write_yolo(folder, "train: images/a\nval: images/b", "images/a", "images/b")
    (folder / "labels/a/2.txt").unlink()
    assert find_layout(folder, 0.2).notes == ["train: 1 of 3 images has no label file: it is used as an image without objects"]
    shutil.rmtree(folder)
    write_voc(folder, "Annotations", "JPEGImages")
    (folder / "Annotations/2.xml").unlink()
    (folder / "Annotations/3.xml").unlink()
    assert "JPEGImages: 2 of 3 images have no XML file in Annotations, and are not used" in find_layout(folder, 0.2).notes


def test_endings_in_capitals_are_read(folder: Path) -> None:
    write_yolo(folder, "train: images/a\nval: images/b", "images/a", "images/b")
    (folder / "labels/a/2.txt").rename(folder / "labels/a/2.TXT")
    (folder / "labels/b/gone.TXT").write_text("0 0.5 0.5 0.2 0.2\n")
    assert find_layout(folder, 0.2).notes == []
    config = build(FolderConfig, {"root": str(folder), **find_layout(folder, 0.2).section}, "x")
    with TemporaryDirectory() as temporary:
        write_folder_dataset(config, folder, 0, yolo_set(folder), Path(temporary))
        objects = [
            len(json.loads(file.read_text())["annotations"])
            for file in sorted(Path(temporary).rglob("*.json"))
            if "_" in file.name
        ]
    assert objects == [3, 4], "three in train, and in val those of a label file without an image too"
    shutil.rmtree(folder)
    write_voc(folder, "Annotations", "JPEGImages")
    (folder / "Annotations/2.xml").rename(folder / "Annotations/2.XML")
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.TXT").write_text("1\n2\n")
    (folder / "ImageSets/Main/val.txt").write_text("3\n")
    assert splits(folder) == {"train": ["JPEGImages/1.png", "JPEGImages/2.png"], "val": ["JPEGImages/3.png"]}
