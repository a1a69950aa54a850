"""The account of a checked dataset: lost entries are a bug, which the check reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detr_core.check.accounting import accounts
from detr_core.check.inspection import inspect
from detr_core.check.leave_out import write_checked
from detr_core.data.splits import read_dataset
from detr_core.reporter import Silent
from detr_core.sources.account import Account, UnaccountedError
from tests.check.datasets import change, write_whole


def test_an_account_that_does_not_balance_names_its_numbers() -> None:
    assert Account("train", 5, 3, 2).used == 3
    with pytest.raises(UnaccountedError, match="train: images: 5 supplied, but 3 used and 1 left out; this is a bug"):
        Account("train: images", 5, 3, 1)


def account(whole: Path, out: Path) -> dict[str, float]:
    splits = read_dataset(whole)
    inspection = inspect(splits, 100, Silent())
    if not out.exists():
        out.mkdir()
        write_checked(whole, inspection.findings, out)
    return accounts(splits, inspection.supplied, read_dataset(out), inspection.findings)


def test_an_image_takes_its_objects_along_in_both_files(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "data")
    (whole / "train" / "2.jpg").unlink()
    change(whole, "train", "instances", lambda coco: coco["annotations"][2].update(bbox=[4, 6, 0, 0]))
    change(
        whole, "train", "instances", lambda coco: coco["annotations"].append({**coco["annotations"][0], "id": 9, "iscrowd": 1})
    )
    change(whole, "train", "panoptic", lambda coco: coco["annotations"][0]["segments_info"].append(
        {"id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}))  # fmt: skip
    metrics = account(whole, tmp_path / "out")
    numbers = {
        entries: tuple(metrics[f"account/train/{entries}/{part}"] for part in ("supplied", "used", "left_out"))
        for entries in ("instances/images", "instances/objects", "panoptic/images", "panoptic/objects")
    }
    assert numbers == {
        "instances/images": (4, 3, 1),
        "instances/objects": (5, 3, 2),  # the crowd is used: it is scored with
        "panoptic/images": (4, 3, 1),
        "panoptic/objects": (9, 6, 3),
    }
    assert (metrics["left_out/train/images"], metrics["left_out/train/objects"]) == (1, 3), "as in the panoptic file"
    assert (metrics["left_out/val/images"], metrics["left_out/val/objects"]) == (0, 0)


def test_an_annotation_of_an_instance_is_one_object_whatever_else_it_has(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "data", panoptic=False)
    change(whole, "train", "instances", lambda coco: coco["annotations"][0].update(segments_info=[]))
    assert account(whole, tmp_path / "out")["account/train/instances/objects/supplied"] == 4


def test_a_lost_annotation_is_a_bug(tmp_path: Path) -> None:
    whole, out = write_whole(tmp_path / "data", panoptic=False), tmp_path / "out"
    (whole / "train" / "2.jpg").unlink()
    account(whole, out)
    file = out / "annotations" / "instances_train.json"
    content: dict[str, Any] = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"annotations": content["annotations"][1:]}))
    with pytest.raises(UnaccountedError, match=r"instances_train\.json: objects: 4 supplied, but 2 used and 1 left out"):
        account(whole, out)
