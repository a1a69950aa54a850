"""`dataset.json` names the images and annotation files of a dataset, which may lie in another folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError, Split, read_dataset, write_dataset

SPLIT = SplitConfig("images", "instances.json", "panoptic.json", "masks")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Returns a folder with folders for images and masks, and two empty annotation files."""
    root = tmp_path / "source"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for file in ("instances.json", "panoptic.json"):
        (root / file).write_text("{}")
    return root


def test_a_dataset_elsewhere_is_read_in_place(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_dataset(folder, source, SPLIT, SplitConfig("images", "instances.json", None, None))
    splits = read_dataset(folder)
    assert splits["train"] == Split(
        "train",
        source / "images",
        source / "instances.json",
        source / "panoptic.json",
        source / "masks",
        folder / "index" / "train",
    )
    assert splits["val"] == Split("val", source / "images", source / "instances.json", None, None, folder / "index" / "val")


def test_a_dataset_inside_its_folder_can_be_moved(source: Path, tmp_path: Path) -> None:
    write_dataset(source, source, SPLIT, SPLIT)
    shutil.move(source, tmp_path / "moved")
    assert read_dataset(tmp_path / "moved")["val"].images == tmp_path / "moved" / "images"


@pytest.mark.parametrize("name", ["missing", "/etc", "../source/images"])
def test_missing_files_are_refused(source: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"source: val\.images: expected"):
        write_dataset(source, source, SPLIT, SplitConfig(name, "instances.json", None, None))
    assert not (source / "dataset.json").exists()


def test_the_error_of_a_missing_dataset_names_the_stages_that_write_it(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"dataset\.json: expected a dataset, found no such file; the stages data and check write it"
    ):
        read_dataset(tmp_path)


def test_malformed_files_name_file_and_field(source: Path) -> None:
    write_dataset(source, source, SPLIT, SPLIT)
    content = json.loads((source / "dataset.json").read_text())
    for broken, message in (
        ("{", r"dataset\.json: not valid JSON"),
        (json.dumps({**content, "val": {"images": "images"}}), r"dataset\.json: val\.instances: missing"),
        (json.dumps({**content, "train": {**content["train"], "images": 3}}), r"dataset\.json: train\.images: expected text"),
    ):
        (source / "dataset.json").write_text(broken)
        with pytest.raises(DatasetError, match=message):
            read_dataset(source)
