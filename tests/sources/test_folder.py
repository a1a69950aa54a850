"""A dataset folder without a validation split, and the configuration of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detr_core.config import ConfigError
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import read_dataset
from detr_core.sources.folder import write_folder_dataset
from tests.check.datasets import write_whole
from tests.sources.folders import folder_config


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
    write_folder_dataset(folder_config(format="coco", train=train, val_share=0.25), root, 3, None, out)
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


def test_an_invalid_folder_section_is_refused() -> None:
    split = {"images": "images", "instances": None, "panoptic": "p.json", "panoptic_masks": "p"}
    for values, message in (
        ({"val_share": None}, "val_share: expected a share if `val` is null"),
        ({"val_share": 1.0}, "val_share: expected between 0 and 1"),
        ({"train": split}, "train: expected only `instances` with format 'yolo'"),
    ):
        with pytest.raises(ConfigError, match=message):
            folder_config(**values)
