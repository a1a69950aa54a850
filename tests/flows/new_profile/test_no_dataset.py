"""The messages for folders that the command `adopt` does not support."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from detr_core.data.splits import DatasetError
from flows.new_profile.dataset_layout import find_layout


def description(folder: Path) -> str:
    """Returns what the error message says of the content of a folder without a dataset."""
    with pytest.raises(DatasetError) as error:
        find_layout(folder, 0.2)
    prefix, found_none, content = str(error.value).partition(", found none; ")
    assert prefix.startswith(f"{folder}: expected COCO's annotation files, YOLO's data.yaml")
    assert "Pascal VOC's Annotations" in prefix
    assert found_none
    return content


def write_labelled(folder: Path, images: str, labels: str) -> None:
    for subfolder in (images, labels):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / images / "a b.jpg")
    (folder / labels / "a b.txt").write_text("0 .5 .5 .2 .2\n")


def test_the_files_of_a_folder_without_a_dataset_are_counted_by_ending(tmp_path: Path) -> None:
    assert description(tmp_path) == "the folder has no files"
    (tmp_path / "inner").mkdir()
    for name in ("a.zip", "b.csv", "inner/c.CSV", ".DS_Store", "README"):
        (tmp_path / name).write_text("0 of 5 rows")
    assert description(tmp_path) == "the folder has 4 files: 2 .csv, 1 without an ending, 1 .zip"


@pytest.mark.parametrize("given", [".", "sets/cells/train", "sets/cells/train/images"])
def test_if_another_folder_is_given_the_error_names_that_of_the_dataset(tmp_path: Path, given: str) -> None:
    cells = tmp_path / "sets" / "cells"
    write_labelled(cells, "train/images", "train/labels")
    (cells / "data.yaml").write_text("train: train/images\nnames: [cat]\n")
    assert description(tmp_path / given) == f"{cells / 'data.yaml'} describes a YOLO dataset: pass its folder, {cells}"


@pytest.mark.parametrize(
    ("images", "labels", "names", "lines"),
    [
        (
            ["train", "valid"],
            ["train", "valid"],
            "train/_darknet.labels",
            '`train: train`, `val: valid`, `names: ["cat", "Hündin"]`',
        ),
        (["train/images", "test/images"], ["train/labels", "test/labels"], None, "`train: train/images`, `test: test/images`, "),
        (["images"], ["labels"], "classes.txt", '`train: images`, `names: ["cat", "Hündin"]`'),
        (["."], ["."], None, '`train: .`, `names: ["..."]`'),
        (["a/train", "b/train"], ["a/train", "b/train"], None, '`train: ["a/train", "b/train"]`, `names: ["..."]`'),
    ],
)
def test_the_error_of_labels_without_a_description_has_the_missing_lines(
    tmp_path: Path, images: list[str], labels: list[str], names: str | None, lines: str
) -> None:
    for pictures, own in zip(images, labels, strict=True):
        write_labelled(tmp_path, pictures, own)
    if names is not None:
        (tmp_path / names).write_text("cat\nHündin\n", encoding="utf-8")
    message = description(tmp_path)
    rows = min(Path(subfolder, "a b.txt").as_posix() for subfolder in labels)
    assert message.startswith(f"{rows} has the rows of a YOLO label file, but data.yaml, which names the classes, is missing: ")
    assert f"write {tmp_path / 'data.yaml'} with the lines {lines}" in message
    yaml_lines = [text for text in message.partition("with the lines ")[2].split("`") if ": " in text]
    (tmp_path / "data.yaml").write_text("\n".join(yaml_lines), encoding="utf-8")
    assert find_layout(tmp_path, 0.2).section["format"] == "yolo", "the lines do what they are said to do"


def test_yaml_files_that_lack_the_class_names_are_named(tmp_path: Path) -> None:
    write_labelled(tmp_path, "images/train", "labels/train")
    (tmp_path / "config.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nname: [cat]\n")
    (tmp_path / "training.yaml").write_text("train: {epochs: 3}\nval: {every: 1}\n")
    expected = f"{tmp_path}/config.yaml has YOLO's keys path, train, val, but not `names` (it has `name`)"
    advice = "list the names of the classes under `names`"
    assert description(tmp_path) == f"{expected}: {advice}"
    (tmp_path / "labels" / "b.yml").write_text("train: [images/train]\n")
    assert description(tmp_path) == f"{expected}; {tmp_path}/labels/b.yml has YOLO's keys train, but not `names`: {advice}"


def write_coco(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        write_labelled(folder, split, split)
        content = {"images": [{"file_name": "a b.jpg"}], "annotations": [], "categories": []}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))


def test_several_datasets_below_a_folder_are_named(tmp_path: Path) -> None:
    write_coco(tmp_path / "exports" / "v1")
    assert find_layout(tmp_path, 0.2).section["train"]["images"] == "exports/v1/train"
    write_coco(tmp_path / "exports" / "v2")
    expected = "expected one dataset, found {} in folders below it: {}; give one of these folders instead"
    for folder, listed in ((tmp_path, "exports/v1 (COCO), exports/v2 (COCO)"), (tmp_path / "exports", "v1 (COCO), v2 (COCO)")):
        with pytest.raises(DatasetError) as error:
            find_layout(folder, 0.2)
        assert str(error.value) == f"{folder}: {expected.format(2, listed)}"
    shutil.rmtree(tmp_path / "exports" / "v2")
    write_labelled(tmp_path / "cells", "images", "labels")
    (tmp_path / "cells" / "config.yaml").write_text("train: images\nnames: [cat]\n")
    write_labelled(tmp_path / "dogs", "pics", "Annotations")
    (tmp_path / "dogs" / "Annotations" / "a b.xml").write_text("<annotation/>")
    with pytest.raises(DatasetError) as error:
        find_layout(tmp_path, 0.2)
    assert str(error.value) == f"{tmp_path}: {expected.format(3, 'cells (YOLO), dogs (Pascal VOC), exports/v1 (COCO)')}"


def test_a_dataset_with_other_annotations_in_a_folder_of_its_own_is_one(tmp_path: Path) -> None:
    write_coco(tmp_path)
    write_coco(tmp_path / "extra" / "v1")
    shutil.rmtree(tmp_path / "test")
    for split in ("train", "valid"):
        (tmp_path / "extra" / "v1" / split / "_annotations.coco.json").unlink()
    assert find_layout(tmp_path, 0.2).section["train"]["images"] == "train"
