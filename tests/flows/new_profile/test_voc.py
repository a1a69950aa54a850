"""Pascal VOC folders of any layout: images, XML files and image sets are found, or the folder is refused with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from detr_core.check.entries import check_entries
from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError
from detr_core.sources.formats.voc import read_voc
from flows.new_profile.dataset_layout import find_layout
from tests.flows.new_profile.annotated_folders import splits, three, write_pictures, write_voc


@pytest.mark.parametrize(
    ("annotations", "images"),
    [
        ("Annotations", "JPEGImages"), ("annotations", "images"), ("ANNOTATIONS", "Images"), ("train", "train"),
        ("VOC2012/Annotations", "VOC2012/JPEGImages"), ("Annotations", "."), (".", "."), ("annotations/sub", "images/sub"),
        ("Annotations", "pics"), ("xmls", "pics"), (".", "pics"), ("VOC/Annotations", "pics"), ("Annotations/sub", "pics/sub"),
    ],
)  # fmt: skip
def test_voc_folders_of_any_name_are_found(folder: Path, annotations: str, images: str) -> None:
    write_voc(folder, annotations, images)
    images_of = splits(folder)
    every = three(images) if images != "." else ["1.png", "2.png", "3.png"]
    assert sorted(images_of["train"] + images_of["val"]) == every


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


@pytest.mark.parametrize("inner", ["{}", "{}/Annotations,{}/JPEGImages", "Annotations/{},JPEGImages/{}"])
def test_voc_folders_of_each_split_are_found(folder: Path, inner: str) -> None:
    annotations, _, images = inner.partition(",")
    for seed, split in enumerate(("train", "valid", "test")):
        write_voc(folder, annotations.format(split), (images or annotations).format(split), seed)
    images_of_split = images or annotations
    assert splits(folder) == {"train": three(images_of_split.format("train")), "val": three(images_of_split.format("valid"))}
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


def test_xml_files_with_an_ending_in_capitals_are_read_and_two_of_one_name_are_reported(folder: Path) -> None:
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


def test_sizes_are_read_from_the_files_of_more_images_than_there_are_objects(folder: Path) -> None:
    write_voc(folder, "Annotations", "JPEGImages")
    for number in (2, 3):
        (folder / f"Annotations/{number}.xml").write_text("<annotation/>")
    [content] = read_voc(folder, {"train": SplitConfig("JPEGImages", "Annotations", None, None)}).values()
    findings = check_entries(content, "train", "instances").findings
    assert [(finding.kind, finding.detail) for finding in findings] == [("image_size_read", "40 x 20 pixels")] * 3
