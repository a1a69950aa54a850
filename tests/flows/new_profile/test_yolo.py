"""The description of a YOLO dataset is followed, or refused with the key that can't be followed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from detr_core.data.splits import DatasetError
from flows.new_profile.dataset_layout import find_layout
from flows.new_profile.yolo_layout import yolo_set
from tests.flows.new_profile.annotated_folders import splits, three, write_pictures, write_yolo


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
    folders = ("images/a", "images/b", "images/c", "images/deep/x", "images/train", "images/val")
    write_yolo(folder, description.replace("FOLDER", str(folder)), *folders)
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
def test_a_key_that_cannot_be_obeyed_is_refused_by_its_name(folder: Path, description: str, message: str) -> None:
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
def test_invalid_names_are_refused(folder: Path, names: str) -> None:
    (folder / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    with pytest.raises(DatasetError, match=r"data\.yaml: names: expected"):
        yolo_set(folder)


def test_images_in_both_splits_are_reported(folder: Path) -> None:
    write_yolo(folder, "train: images/a\nval: images/a", "images/a")
    [note] = find_layout(folder, 0.2).notes
    assert note.startswith("data.yaml: train and val have 3 images in common, and the check stops at such a dataset; set ")
