"""Scoring reads only the required part of an annotation file and ignores the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detr_core.data.splits import DatasetError
from detr_core.evaluate.areas import is_plausible
from detr_core.evaluate.average_precision import coco_ap
from detr_core.evaluate.ground_truth import has_masks, read_instances

SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]
RUNS = {"size": [40, 50], "counts": [10, 30, 1960]}


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    common = {"image_id": 0, "category_id": 0, "bbox": [2, 2, 10, 10]}
    return {
        "images": [{"id": 0, "file_name": "a.jpg", "height": 40, "width": 50, "date_captured": 0}],
        "annotations": [{"id": number, **common, **annotation} for number, annotation in enumerate(annotations)],
        "categories": [{"id": 0, "name": "cat", "supercategory": None}],
        "info": {"year": "", "version": 1},
        "licenses": [{"id": "MIT"}, None],
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Returns the path of an annotation file that does not exist yet."""
    return tmp_path / "instances.json"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_only_images_annotations_and_categories_are_read(file: Path, encoding: str) -> None:
    file.write_text(json.dumps(content({"area": 100}, {"id": "x", "area": 100, "iscrowd": 1})), encoding=encoding)
    truth = read_instances(file)
    assert [(entry["id"], entry["iscrowd"]) for entry in truth.load_anns(truth.get_ann_ids())] == [(1, 0), (2, 1)]
    results = [{"image_id": 0, "category_id": 0, "bbox": [2, 2, 10, 10], "score": 0.5}]
    assert coco_ap(file, results, "bbox").metrics["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("annotation", "area"),
    [
        ({"area": 61.5}, 61.5),
        ({"area": 0}, 100),
        ({"area": "61.5"}, 100),
        ({}, 100),
        ({"area": 0, "segmentation": SQUARE, "bbox": [2, 2, 10, 20]}, 100),
        ({"area": 10_000, "segmentation": RUNS}, 30),
        ({"area": None, "segmentation": [[2, 2, 3, 2]]}, 100),
    ],
)
def test_an_area_that_can_not_be_is_the_masks_or_the_boxs(file: Path, annotation: dict[str, Any], area: float) -> None:
    file.write_text(json.dumps(content(annotation)))
    truth = read_instances(file)
    assert [entry["area"] for entry in truth.load_anns(truth.get_ann_ids())] == [area]


def test_areas_of_thin_and_of_tiny_objects_are_plausible() -> None:
    for area, width, height in ((100, 10, 10), (144, 10, 10), (20, 20, 20), (0.5, 1, 1), (9, 1, 1), (55, 100, 0.5)):
        assert is_plausible(area, [0, 0, width, height])
    for area, width, height in (
        (145, 10, 10),
        (0, 10, 10),
        (-1, 10, 10),
        (float("nan"), 9, 9),
        (10**400, 9, 9),
        (True, 1, 1),
        (4, 20, 20),
    ):
        assert not is_plausible(area, [0, 0, width, height])


@pytest.mark.parametrize(
    ("segmentations", "masks"),
    [
        ([SQUARE, SQUARE], True),
        ([SQUARE, RUNS], True),
        ([SQUARE, []], False),
        ([[], SQUARE], False),
        ([None, None], False),
        ([], False),
    ],
)
def test_masks_are_scored_where_every_object_has_one(file: Path, segmentations: list[Any], masks: bool) -> None:
    objects: list[dict[str, Any]] = [{"area": 100, "segmentation": segmentation} for segmentation in segmentations]
    file.write_text(json.dumps(content(*objects, {"area": 100, "iscrowd": 1, "segmentation": RUNS})))
    assert has_masks(read_instances(file)) == masks


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"bbox": ["1", 2, 3, 4]}, "annotations: .*expected `bbox` of 4 numbers"),
        ({"bbox": [1, 2, 3]}, "annotations: .*expected `bbox` of 4 numbers"),
        ({"image_id": 9}, "annotations: expected 9, found an entry without it"),
        ({"area": 0, "segmentation": [[1, 2, 3, 4, 5, 1e9]]}, "expected coordinates of at most"),
    ],
)
def test_the_error_of_missing_ground_truth_names_the_file(file: Path, edit: dict[str, Any], message: str) -> None:
    file.write_text(json.dumps(content(edit)))
    with pytest.raises(DatasetError, match=rf"instances\.json: .*{message}"):
        read_instances(file)
