"""YOLO and Pascal VOC datasets as tools export them: each is read as its files state, or refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from detr_core.check.entries import check_entries
from detr_core.config import ConfigError, build
from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError, read_dataset
from detr_core.sources.config import FolderConfig
from detr_core.sources.folder import write_folder_dataset
from detr_core.sources.formats.voc import read_voc
from flows.new_profile.dataset_layout import find_layout
from flows.new_profile.yolo_layout import yolo_set
from tests.adopting import Outcome, carried
from tests.flows.new_profile.test_coco_exports import field, outcome, params, sums  # noqa: F401

Carry = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("case", "images", "told"),
    [
        ("02-yolo-pose", (24, 8), "path: ../datasets/x was not found"),
        ("04-yolo-list", (24, 8), ""),
        ("04b-yolo-txt", (8, 4), ""),
        ("09c-voc-spaces", (24, 8), ""),
        ("09e-voc-trainval-test", (24, 8), "the test set, ImageSets/Main/test.txt, is used for validation"),
    ],
)
def test_what_the_files_say_is_done(field: Path, outcome: Carry, case: str, images: tuple[int, int], told: str) -> None:  # noqa: F811
    found = outcome(field / case / "set")
    assert (found.images, found.error) == ({"train/images": images[0], "val/images": images[1]}, "")
    objects = sums(found, "objects")
    assert (objects["supplied"], objects["used"]) == ((65, 65) if sum(images) == 32 else (24, 24))
    assert told in " ".join(found.told)
    assert found.found == ({"columns_left_out": 65} if "pose" in case else {})


def test_an_image_without_an_ending_in_its_xml_is_found_by_the_stem(field: Path, outcome: Carry) -> None:  # noqa: F811
    found = outcome(field / "09-voc-no-extension" / "set")
    assert (found.error, found.found, sums(found, "objects")["used"]) == ("", {}, 65)


def test_tracker_output_is_refused_unless_someone_says_how_to_read_it(field: Path, outcome: Carry, params: Path) -> None:  # noqa: F811
    root = field / "03-yolo-conf-id" / "set"
    refused = outcome(root)
    assert refused.error.startswith("labels/train/img001.txt: line 1: expected a box")
    assert "found 7 columns" in refused.error
    assert "`--labels boxes`, `--labels polygons` or `--labels keypoints`" in refused.error
    assert not refused.paths.data.exists()
    boxes = carried(root, "tracked-boxes", params, labels="boxes")
    assert (boxes.error, boxes.found, sums(boxes, "objects")["used"]) == ("", {"columns_left_out": 65}, 65)


def test_a_broken_image_stops_strict_and_is_left_out_by_lenient(field: Path, outcome: Carry) -> None:  # noqa: F811
    root = field / "15-yolo-broken-image" / "set"
    strict = outcome(root)
    assert "1 x an image file of 0 bytes; the first is in train, img003.jpg" in strict.error
    assert any("img003.jpg" in line for line in strict.told)
    lenient = outcome(root, "lenient")
    assert (lenient.error, lenient.found) == ("", {"image_empty": 1})
    assert sums(lenient, "images") == {"supplied": 32, "used": 31, "left_out": 1}
    assert sums(lenient, "objects") == {"supplied": 65, "used": 64, "left_out": 1}


def test_damaged_labels_stop_strict_and_are_left_out_by_lenient(field: Path, outcome: Carry, tmp_path: Path) -> None:  # noqa: F811
    yolo, voc = tmp_path / "yolo", tmp_path / "voc"
    shutil.copytree(field / "04-yolo-list" / "set", yolo)
    with (yolo / "labels/train/img001.txt").open("a") as file:
        file.write("0 .5 .5\n9 .5 .5 .1 .1\n")
    (yolo / "labels/val/nobody.txt").write_text("0 .5 .5 .1 .1\n")
    shutil.copytree(field / "09c-voc-spaces" / "set", voc)
    (voc / "Annotations/my photo 3.xml").write_bytes(b"\xff\xfe<annotation>")
    for root, line, found in (
        (yolo, "labels/train/img001.txt: line 3", {"object_entry": 1, "unknown_category": 1, "object_without_image": 1}),
        (voc, "Annotations/my photo 3.xml", {"image_labels": 1}),
    ):
        lenient = outcome(root, "lenient")
        assert any(line in told for told in lenient.told)
        assert "annotations[" not in " ".join(lenient.told), "these are places in COCO's files"
        assert (lenient.error, lenient.found) == ("", found)
    assert "labels/train/img001.txt: line 3: expected `class cx cy w h`" in outcome(yolo).error


def test_an_image_without_usable_labels_or_pixels_takes_its_objects_with_it_in_every_number(
    folder: Path,
    outcome: Carry,  # noqa: F811
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
    found = outcome(folder, "lenient")
    assert (found.error, found.found) == ("", {"image_labels": 1, "image_missing": 1, "image_truncated": 1})
    findings = json.loads((found.paths.check / "findings.json").read_text())
    assert ["'4' has no Annotations/4.xml" in each["detail"] for each in findings if each["kind"] == "image_labels"] == [True]
    place = "account/train/instances"
    assert [found.metrics[f"{place}/images/{part}"] for part in ("supplied", "used", "left_out")] == [5, 2, 3]
    assert [found.metrics[f"{place}/objects/{part}"] for part in ("supplied", "used", "left_out")] == [3, 1, 2]
    assert [found.metrics[name] for name in ("train/images", "left_out/train/images")] == [2, 3]
    assert [found.metrics[name] for name in ("train/objects", "left_out/train/objects")] == [1, 2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def write_yolo(folder: Path, description: str, *places: str, name: str = "data.yaml") -> None:
    """Pictures 1.png, 2.png, 3.png in each place, of different content, with a box each, and the description."""
    for place in places:
        write_pictures(folder / place, seed=len(place))
        for number in (1, 2, 3):
            label = folder / place.replace("images", "labels") / f"{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 .5 .5 .2 .2\n")
    (folder / name).write_text(description + "\nnames: [red]\n")


def write_pictures(folder: Path, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        pixels = np.random.default_rng([seed, number]).integers(0, 256, (20, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def splits(folder: Path) -> dict[str, list[str]]:
    """The images of each split, below the folder, as adopt and the data stage read them."""
    config = build(FolderConfig, {"root": str(folder), **find_layout(folder, 0.34).section}, "x")
    with TemporaryDirectory() as out:
        write_folder_dataset(config, folder, 0, yolo_set(folder) if config.format == "yolo" else None, Path(out))
        found = {}
        for name, split in read_dataset(Path(out)).items():
            assert split.instances is not None
            images = json.loads(split.instances.read_bytes())["images"]
            assert all((split.images / image["file_name"]).is_file() for image in images)
            found[name] = sorted((split.images / image["file_name"]).relative_to(folder).as_posix() for image in images)
        return found


def three(*places: str) -> list[str]:
    return sorted(f"{place}/{number}.png" for place in places for number in (1, 2, 3))


@pytest.mark.parametrize("name", ["data.yaml", "dataset.yaml", "config.yaml", "cells.yml"])
def test_the_description_may_have_any_name(folder: Path, name: str) -> None:
    write_yolo(folder, "train: images/a\nval: images/b", "images/a", "images/b", name=name)
    (folder / "._data.yaml").write_bytes(b"\0\5\x16\7")
    (folder / "settings.yaml").write_text("epochs: 3\n")
    assert splits(folder) == {"train": three("images/a"), "val": three("images/b")}


@pytest.mark.parametrize(
    ("description", "train", "val"),
    [
        ("train: [images/a, images/b]\nval: images/c", ["images/a", "images/b"], ["images/c"]),
        ("train: images/a\nval: [images/b, images/c]", ["images/a"], ["images/b", "images/c"]),
        ("path: images\ntrain: a\nval: b", ["images/a"], ["images/b"]),
        ("path: ./\ntrain: ./images/a/\nval: images\\b", ["images/a"], ["images/b"]),
        ("path: FOLDER\ntrain: FOLDER/images/a\nval: images/b", ["images/a"], ["images/b"]),
        ("path: /content/set\ntrain: ../images/a\nval: ../images/b", ["images/a"], ["images/b"]),
        ("train: images/deep\nval: images/b", ["images/deep/x"], ["images/b"]),
        ("train: images/a\nval: images/b\ntest: images/c", ["images/a"], ["images/b"]),
        ("train: images/a\ntest: images/c", ["images/a"], ["images/c"]),
        ("train: images/a\nvalidation: images/c", ["images/a"], ["images/c"]),
        ("train: images/a\nval: images/b\ntest: ../test/images", ["images/a"], ["images/b"]),
        ("train: a.txt\nval: images/b", ["images/a"], ["images/b"]),
    ],
)
def test_the_description_is_obeyed(folder: Path, description: str, train: list[str], val: list[str]) -> None:
    places = ("images/a", "images/b", "images/c", "images/deep/x", "images/train", "images/val")
    write_yolo(folder, description.replace("FOLDER", str(folder)), *places)
    (folder / "a.txt").write_text("﻿./images/a/1.png\r\nimages/a/2.png\r\nimages\\a\\3.png\r\n", encoding="utf-8")
    assert splits(folder) == {"train": three(*train), "val": three(*val)}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("train: images/nowhere\nval: images/b", r"data\.yaml: train: expected .* found none at 'images/nowhere'"),
        ("train: /elsewhere/images\nval: images/b", r"data\.yaml: train: expected .* found none at '/elsewhere/images'"),
        ("train: images/a\nval: images/nowhere", r"data\.yaml: val: .*; correct the key, or remove it"),
        (
            "path: D:\\data\\cells\ntrain: images/a\nval: images/nowhere",
            r"data\.yaml: path: expected the folder of the dataset, found no folder at 'D:\\data\\cells'; "
            r"val: 'images/nowhere' is not in the folder of data\.yaml either; correct `path`, or remove it and write the other "
            r"paths relative to the folder of data\.yaml",
        ),
        ("path: /home/a/cells\ntrain: images/nowhere", r"data\.yaml: path: expected .*, found no folder at '/home/a/cells'"),
        (
            "path: /home/a/cells\ntrain: C:\\cells\\images\\a",
            r"data\.yaml: train: .* found none at 'C:\\cells\\images\\a'; write the path relative to the folder of data\.yaml",
        ),
        ("train: images/a\nval: ../beside", r"data\.yaml: val: expected a path inside .*/set, found '\.\./beside'"),
        ("path: ../beside\ntrain: .\nval: images/b", r"data\.yaml: path: expected a path inside .*/set, found '\.\./beside'"),
        ("train: images/a/1.png\nval: images/b", r"data\.yaml: train: expected a folder or a \.txt list"),
        ("train: []\nval: images/b", r"data\.yaml: train: .*an empty list"),
        ("train: {a: b}\nval: images/b", r"data\.yaml: train: expected folders or lists of images"),
        ("train: 7\nval: images/b", r"data\.yaml: train: expected folders or lists of images"),
        ("train: images\nval: images/b\ntest: images/c", r"train and test: expected no image in both, found 3, such as images/c"),
        (
            "train: images/train\nval: images/b",
            r"labels/train: expected the folder of the label files of train, found none",
        ),
        ("train: missing.txt\nval: images/b", r"missing\.txt: expected a list of images that lie below"),
        ("train: outside.txt\nval: images/b", r"outside\.txt: expected images below .*, found '/elsewhere/1\.png'"),
        ("train: images/a\nval: images/b\nkpt_shape: 3", r"data\.yaml: kpt_shape: expected"),
        ("train: images/a\nval: images/b\nnc: 2", r"data\.yaml: nc: expected 1, as many as there are names, found 2"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_with_its_key(folder: Path, description: str, message: str) -> None:
    write_yolo(folder, description, "images/a", "images/b", "images/c", "images/train")
    write_pictures(folder.parent / "beside")
    shutil.rmtree(folder / "labels" / "train")
    (folder / "missing.txt").write_text("images/a/7.png\n")
    (folder / "outside.txt").write_text("/elsewhere/1.png\n")
    with pytest.raises(DatasetError, match=message):
        splits(folder)


@pytest.mark.parametrize("names", ["[red, blue]", "{0: red, 1: blue}", "{'1': blue, '0': red}"])
def test_names_are_a_list_or_a_mapping(folder: Path, names: str) -> None:
    write_pictures(folder / "images/train")
    (folder / "data.yaml").write_text(f"train: images/train\nnc: 2\nnames: {names}\n")
    assert yolo_set(folder).names == ("red", "blue")


@pytest.mark.parametrize("names", ["{0: red, 2: blue}", "[]", "red", "[[red]]", "[red, null]", "{a: red}"])
def test_names_that_are_none_are_refused(folder: Path, names: str) -> None:
    (folder / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    with pytest.raises(DatasetError, match=r"data\.yaml: names: expected"):
        yolo_set(folder)


def test_labels_are_for_yolo_alone(folder: Path) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    with pytest.raises(ConfigError, match=r"--labels: expected only with a YOLO dataset, found a dataset in the format 'voc'"):
        find_layout(folder, 0.2, "boxes")


def write_voc(folder: Path, annotations: str, images: str, seed: int = 0) -> None:
    write_pictures(folder / images, seed)
    (folder / annotations).mkdir(parents=True, exist_ok=True)
    for number in (1, 2, 3):
        (folder / annotations / f"{number}.xml").write_text(
            f"<annotation><filename>{number}.png</filename><object><name>red</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )
    (folder / annotations / "._1.xml").write_bytes(b"\0\5\x16\7")


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("Annotations", "JPEGImages"), ("annotations", "images"), ("ANNOTATIONS", "Images"), ("train", "train"),
        ("VOC2012/Annotations", "VOC2012/JPEGImages"), ("Annotations", "."), (".", "."), ("annotations/sub", "images/sub"),
        ("Annotations", "pics"), ("xmls", "pics"), (".", "pics"), ("VOC/Annotations", "pics"), ("Annotations/sub", "pics/sub"),
    ],
)  # fmt: skip
def test_voc_folders_of_any_name(folder: Path, annotations: str, images: str) -> None:
    write_voc(folder, annotations, images)
    found = splits(folder)
    every = three(images) if images != "." else ["1.png", "2.png", "3.png"]
    assert sorted(found["train"] + found["val"]) == every


def test_the_folder_of_voc_images_is_the_only_one_that_has_them(folder: Path) -> None:
    write_voc(folder, "Annotations", "pics")
    write_pictures(folder / "images" / "of another set")
    write_pictures(folder / "SegmentationClass")
    assert find_layout(folder, 0.2).section["train"]["images"] == "pics"
    write_pictures(folder / "copies")
    with pytest.raises(
        DatasetError, match=r"set: expected one folder with the images of the XML files in Annotations, found copies, pics; ren"
    ):
        find_layout(folder, 0.2)
    for name in ("copies", "pics", "images"):
        shutil.rmtree(folder / name)
    write_pictures(folder / "Other" / "deep")
    with pytest.raises(DatasetError) as error:
        find_layout(folder, 0.2)
    assert str(error.value) == (
        f"{folder}: expected the images of the XML files, such as that of Annotations/1.xml, in JPEGImages or in another folder "
        "beside Annotations, found none of them; folders with other images: Other/deep (3 images), SegmentationClass (3 images)"
    )


def test_missing_images_are_told(folder: Path) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    (folder / "JPEGImages/2.png").unlink()
    assert "train: 1 of 3 images is missing, such as JPEGImages/2.png" in find_layout(folder, 0.2).notes
    shutil.rmtree(folder)
    write_yolo(folder, "train: a.txt\nval: images/b", "images/a", "images/b")
    (folder / "a.txt").write_text("images/a/1.png\nimages/a/7.png\nimages/a/8.png\n")
    assert "train: 2 of 3 images are missing, such as images/a/7.png" in find_layout(folder, 0.2).notes


@pytest.mark.parametrize("inner", ["{}", "{}/Annotations,{}/JPEGImages", "Annotations/{},JPEGImages/{}"])
def test_voc_folders_of_each_split(folder: Path, inner: str) -> None:
    annotations, _, images = inner.partition(",")
    for seed, split in enumerate(("train", "valid", "test")):
        write_voc(folder, annotations.format(split), (images or annotations).format(split), seed)
    place = images or annotations
    assert splits(folder) == {"train": three(place.format("train")), "val": three(place.format("valid"))}
    assert any("the test set, " in note and "neither" in note for note in find_layout(folder, 0.2).notes)


@pytest.mark.parametrize(
    ("lists", "train", "val"),
    [
        ({"train": "1\n", "val": "2\n", "trainval": "1\n2\n", "test": "3\n"}, "1", "2"),
        ({"train": "1  1\n", "test": "3 -1\n"}, "1", "3"),
        ({"train": "1.png\n", "val": "JPEGImages/2.png\r\n", "cat_train": "1 -1\n"}, "1", "2"),
        ({"Train": "1\n"}, None, None),
    ],
)
def test_image_sets_are_obeyed(folder: Path, lists: dict[str, str], train: str | None, val: str | None) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    (folder / "ImageSets/Main").mkdir(parents=True)
    for name, text in lists.items():
        (folder / f"ImageSets/Main/{name}.txt").write_text(text)
    if train is None:
        with pytest.raises(DatasetError, match=r"Main: expected lists called train, val, trainval or test, found Train"):
            splits(folder)
    else:
        assert splits(folder) == {"train": [f"JPEGImages/{train}.png"], "val": [f"JPEGImages/{val}.png"]}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"val": "1\n"}, "expected a list train.txt or trainval.txt, found only val.txt"),
        ({"trainval": "1\n", "val": "2\n"}, "expected train.txt beside val.txt, found trainval.txt"),
        ({"train": "1\n", "trainval": "1\n2\n"}, "expected val.txt beside train.txt and trainval.txt"),
        ({"train": "1\n2\n", "val": "2\n"}, "expected no image in both, found 1, such as '2'"),
        ({"train": "1\n2\n", "val": "3\n", "test": "2\n"}, "train.txt and ImageSets/Main/test.txt: expected no image in both"),
        ({"train": "\n", "val": "3\n"}, "train.txt: expected image names, one per line, found none"),
        ({"fold1": "1\n"}, "expected lists called train, val, trainval or test, found fold1"),
    ],
)
def test_image_sets_that_cannot_be_obeyed_are_refused(folder: Path, lists: dict[str, str], message: str) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    (folder / "ImageSets/Main").mkdir(parents=True)
    for name, text in lists.items():
        (folder / f"ImageSets/Main/{name}.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        splits(folder)


def test_images_without_labels_are_told(folder: Path) -> None:
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


def test_xml_files_with_an_ending_in_capitals_are_read_and_two_of_one_name_are_told(folder: Path) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    (folder / "Annotations/2.xml").rename(folder / "Annotations/2.XML")
    split = SplitConfig("JPEGImages", "Annotations", None, None)
    [first] = read_voc(folder, {"train": split}).values()
    assert len(first["images"]) == len(first["annotations"]) == 3
    shutil.copy(folder / "Annotations/2.XML", folder / "Annotations/2.xml")
    [second] = read_voc(folder, {"train": split}).values()
    assert len(second["images"]) == 3
    [fault] = [entry["conversion_fault"] for entry in second["images"] if "conversion_fault" in entry]
    assert fault.endswith("expected one XML file of this name, found a second one that differs only in the case of its ending")


def test_images_that_train_and_validate_are_told(folder: Path) -> None:
    write_yolo(folder, "train: images/a\nval: images/a", "images/a")
    [note] = find_layout(folder, 0.2).notes
    assert note.startswith("data.yaml: train and val have 3 images in common, and the check stops at such a dataset; set ")


def test_sizes_are_read_from_the_files_of_more_images_than_there_are_objects(folder: Path) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    for number in (2, 3):
        (folder / f"Annotations/{number}.xml").write_text("<annotation/>")
    [content] = read_voc(folder, {"train": SplitConfig("JPEGImages", "Annotations", None, None)}).values()
    findings = check_entries(content, "train", "instances").findings
    assert [(finding.kind, finding.detail) for finding in findings] == [("image_size_read", "40 x 20 pixels")] * 3
