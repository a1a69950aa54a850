"""Findings on a dataset as a whole: its splits, its categories and the numbers of its objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detr_core.check.findings import FINDING_KINDS, Finding
from detr_core.check.inspection import inspect
from detr_core.data.splits import DatasetError, read_dataset
from tests.check.datasets import HEIGHT, WIDTH, change, cut, inspected, kinds, write_whole
from tests.check.test_entries import INSTANCE_FAULTS
from tests.check.test_images import IMAGE_FAULTS
from tests.recording_reporter import RecordingReporter


def test_a_sound_dataset_has_no_findings(whole: Path) -> None:
    reporter = RecordingReporter()
    inspection = inspect(read_dataset(whole), 2, reporter)
    assert inspection.findings == []
    assert reporter.last_progress == (4, 4), "the val split's panoptic PNGs come last"
    train = inspection.statistics["train"]
    assert train.classes == {"cat": 4, "sky": 4}
    assert dict(train.objects) == {2: 4}
    assert dict(train.sides) == {11: 4, 28: 4}
    assert dict(train.sizes) == {(HEIGHT, WIDTH): 4}


def test_one_set_for_both_splits_is_no_finding(whole: Path) -> None:
    file = whole / "dataset.json"
    dataset = json.loads(file.read_text())
    file.write_text(json.dumps(dataset | {"val": dataset["train"]}))
    assert kinds(whole) == set()


def test_more_objects_than_queries_and_categories_without_objects_are_reported(whole: Path) -> None:
    for split in ("train", "val"):
        for source in ("instances", "panoptic"):
            change(whole, split, source, lambda coco: coco["categories"].append({"id": 9, "name": "dog", "isthing": 1}))
    findings = inspected(whole, queries=1).findings
    assert [finding.detail for finding in findings if finding.kind == "category_unused"] == ["dog"]
    assert sum(finding.kind == "many_objects" for finding in findings) == 8, "two segments each, in eight images"


def test_an_unreadable_file_is_an_error(whole: Path) -> None:
    change(whole, "val", "instances", lambda coco: coco["categories"][0].update(name="dog"))
    with pytest.raises(DatasetError, match=r"instances_val\.json: categories: expected the categories of the train split"):
        inspected(whole)
    change(whole, "val", "instances", lambda coco: coco.update(categories=[]))
    with pytest.raises(DatasetError, match="categories: expected at least one category"):
        inspected(whole)
    cut(whole / "instances_val.json", 50)
    with pytest.raises(DatasetError, match="not valid JSON"):
        inspected(whole)


def test_a_split_whose_images_with_objects_are_all_left_out_has_nothing_to_learn(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    change(folder, "val", "instances", lambda coco: coco["annotations"].pop())
    for number in (101, 102, 103):
        (folder / "val" / f"{number}.jpg").unlink()
    [finding] = [finding for finding in inspected(folder).findings if finding.kind == "nothing_to_learn"]
    assert (finding.split, finding.source, finding.detail) == (
        "val",
        "instances",
        "1 image, 0 crowds, no other object that is used",
    )


def test_categories_of_one_name_are_distinguished(whole: Path) -> None:
    for split in ("train", "val"):
        for source in ("instances", "panoptic"):
            change(whole, split, source, lambda coco: coco["categories"].append({"id": 9, "name": "cat", "isthing": 1}))
    inspection = inspected(whole)
    assert inspection.statistics["train"].classes == {"cat (id 3)": 4, "sky": 4, "cat (id 9)": 0}
    repeated = [finding.detail for finding in inspection.findings if finding.kind == "category_repeated"]
    assert repeated == ["cat (id 3)", "cat (id 9)"]


@pytest.mark.parametrize("remove", [lambda coco: coco["annotations"].clear(), lambda coco: coco["images"].clear()])
def test_a_split_without_objects_is_found(tmp_path: Path, remove: Callable[[dict[str, Any]], object]) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    change(folder, "val", "instances", remove)
    findings = [(finding.split, finding.source) for finding in inspected(folder).findings if finding.kind == "nothing_to_learn"]
    assert findings == [("val", "instances")]


def test_every_kind_has_a_test() -> None:
    tested = {
        *IMAGE_FAULTS,
        *INSTANCE_FAULTS,
        "image_id",
        "duplicate_within",
        "duplicate_across",
        "image_labels",  # in tests/flows/new_profile/test_yolo_voc.py
        "columns_left_out",  # in tests/sources/test_folder.py
        "many_objects",
        "category_unused",
        "category_repeated",
        "nothing_to_learn",
        "image_deep",
        "image_constant",
    }
    assert tested | {kind for kind in FINDING_KINDS if kind.startswith("panoptic")} == set(FINDING_KINDS)
    assert Finding("box_outside", "train").leaves == "object"
