"""Findings on the entries of annotation files: each fault in a small dataset that has only this fault."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detr_core.check.leave_out import write_checked
from detr_core.check.outlines import outline_fault
from tests.check.datasets import HEIGHT, WIDTH, change, cut, inspected, write_whole


def edited(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda coco: coco["annotations"][1].update(values)


INSTANCE_FAULTS: dict[str, list[Callable[[dict[str, Any]], object]]] = {
    "image_entry": [
        lambda coco: coco["images"][1].pop("file_name"),
        lambda coco: coco["images"][1].update(id="2"),
        lambda coco: coco["images"][1].update(width=-3),
        lambda coco: coco["images"][1].update(height=1e9),
        lambda coco: coco["images"][1].update(file_name="../train/2.jpg"),
        lambda coco: coco["images"][1].update(file_name="/etc/hostname"),
        lambda coco: coco["images"].append(7),
    ],
    "image_size_read": [lambda coco: coco["images"][1].update(size_read_from_file=True)],
    "object_area": [edited(area=0), edited(area=-1), edited(area="120"), edited(area=None), edited(area=500), edited(area=1)],
    "object_without_mask": [lambda coco: coco["annotations"][1].pop("segmentation"), edited(segmentation=[])],
    "object_entry": [
        lambda coco: coco["annotations"].append(None),
        lambda coco: coco["annotations"][1].pop("bbox"),
        edited(bbox=[1, 2, 3]),
        edited(bbox=["1", 2, 3, 4]),
        edited(id=None),
        edited(category_id=[3]),
    ],
    "object_id": [edited(id=1)],
    "object_without_image": [edited(image_id=99), edited(image_id="2")],
    "unknown_category": [edited(category_id=4)],
    "box_degenerate": [
        edited(bbox=[4, 6, 0, 12]),
        edited(bbox=[4, 6, 10, -1]),
        edited(bbox=[math.nan, 6, 10, 12]),
        edited(bbox=[4, 6, math.inf, 12]),
        edited(bbox=[4, 6, 10**400, 12]),
    ],
    "box_outside": [edited(bbox=[40, 6, 10, 12]), edited(bbox=[4, -20, 10, 12])],
    "box_clipped": [edited(bbox=[4, 6, 60, 12]), edited(bbox=[-2, 6, 10, 12])],
    "object_repeated": [lambda coco: coco["annotations"].append({**coco["annotations"][1], "id": 50})],
    "polygon_broken": [
        edited(segmentation=[[1, 2, 3, 4]]),
        edited(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        edited(segmentation=[[1, 2, 3, math.nan, 5, 6]]),
        edited(segmentation=[[1, 2, 1, 5, 1, 9]]),
        edited(segmentation=[[1, 2, 3, 4, 5, 1e300]]),
        edited(segmentation=["polygon"]),
        edited(segmentation="polygon"),
    ],
    "rle_broken": [
        edited(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
        edited(segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 5, -5]}),
        edited(segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}),
        edited(segmentation={"size": [1, 2], "counts": [1, 1]}),
        edited(segmentation={"size": [HEIGHT, WIDTH], "counts": "~~~~~~~~"}),
        edited(segmentation={"size": [HEIGHT, WIDTH]}),
    ],
}


@pytest.mark.parametrize(
    ("kind", "edit"),
    [(kind, edit) for kind, edits in INSTANCE_FAULTS.items() for edit in edits],
    ids=lambda value: str(value)[:24],
)
def test_a_faulty_entry_of_the_instances_is_reported(tmp_path: Path, kind: str, edit: Callable[[dict[str, Any]], object]) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    change(folder, "train", "instances", edit)
    findings = [finding for finding in inspected(folder).findings if finding.kind == kind]
    assert [(finding.split, finding.source) for finding in findings] == [("train", "instances")]
    assert findings[0].detail
    json.dumps([finding.__dict__ for finding in findings], allow_nan=False)


def test_a_value_that_is_not_a_number_is_reported_as_it_is(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    change(folder, "train", "instances", edited(bbox=[math.nan, 6, math.inf, 12]))
    details = [finding.detail for finding in inspected(folder).findings if finding.kind == "box_degenerate"]
    assert details == [f"x nan, y 6, w inf, h 12 in {WIDTH} x {HEIGHT} pixels"]


def segment(index: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda coco: coco["annotations"][1]["segments_info"][index].update(values)


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("panoptic_missing_segment", lambda coco: coco["annotations"][1]["segments_info"].append(
            {"id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0})),
        ("panoptic_unknown_segment", lambda coco: coco["annotations"][1]["segments_info"].pop()),
        ("panoptic_area", segment(0, area=121)),
        ("panoptic_png", lambda coco: coco["annotations"][1].update(file_name="1.jpg")),
        ("panoptic_png", lambda coco: coco["annotations"][1].update(file_name="../panoptic_train/2.png")),
        ("unknown_category", segment(1, category_id=99)),
        ("box_degenerate", segment(1, bbox=[0, 0, 0, 0])),
        ("object_entry", segment(1, id="x")),
        ("object_entry", lambda coco: coco["annotations"][1].pop("segments_info")),
        ("object_without_image", lambda coco: coco["annotations"][1].update(image_id=77)),
    ],
)  # fmt: skip
def test_panoptic_entries_that_disagree_with_their_png_are_reported(
    whole: Path, kind: str, edit: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    change(whole, "train", "panoptic", edit)
    findings = inspected(whole).findings
    assert kind in {finding.kind for finding in findings}
    (tmp_path / "checked").mkdir()
    write_checked(whole, findings, tmp_path / "checked")
    assert not [finding for finding in inspected(tmp_path / "checked").findings if finding.leaves is not None]


def test_panoptic_pngs_that_are_cut_short_or_of_another_size_are_reported(whole: Path) -> None:
    cut(whole / "panoptic_train" / "1.png", 40)
    Image.new("RGB", (3, 3)).save(whole / "panoptic_train" / "2.png")
    (whole / "panoptic_val" / "103.png").unlink()
    findings = [(finding.split, finding.image_id) for finding in inspected(whole).findings if finding.kind == "panoptic_png"]
    assert findings == [("train", 1), ("train", 2), ("val", 103)]


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_run_lengths_of_pycocotools_are_no_finding(pixels: list[bool]) -> None:
    from pycocotools import mask

    encoded = mask.encode(np.asfortranarray(np.array(pixels, dtype=np.uint8).reshape(3, 4)))
    fault = outline_fault({"size": [3, 4], "counts": encoded["counts"].decode()}, (3, 4))
    assert (fault is None) == any(pixels)


def test_hotcoco_reports_the_same_entries_for_the_faults_that_it_checks(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    faults = ({"image_id": 77}, {"category_id": 9}, {"bbox": [3, 3, 0, 2]}, {"bbox": [60, 3, 5, 5], "area": 25})
    for index, fault in enumerate(faults):
        change(folder, "train", "instances", lambda coco, index=index, fault=fault: coco["annotations"][index].update(fault))
    health = hotcoco.COCO(str(folder / "instances_train.json")).healthcheck()
    theirs = {entry["code"]: set(entry["affected_ids"]) for entry in health["errors"] + health["warnings"]}
    ours = {finding.kind: {(finding.entry_index or 0) + 1} for finding in inspected(folder).findings}
    assert ours["object_without_image"] == theirs["orphan_image_id"]
    assert ours["unknown_category"] == theirs["orphan_category_id"]
    assert ours["box_degenerate"] == theirs["degenerate_bbox"]
    assert ours["box_outside"] <= theirs["bbox_out_of_bounds"]
