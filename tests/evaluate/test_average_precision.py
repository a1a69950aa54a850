"""AP and the error breakdown on a ground truth of a few boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hotcoco import COCO

from detr_core.evaluate.average_precision import coco_ap, error_breakdown, read_ground_truth
from detr_core.evaluate.metric_names import METRICS
from detr_core.structures import category_labels


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Returns two images: a cat and a dog of 50 x 50 pixels in the first one, a cat of 20 x 20 pixels in the second one."""
    boxes = [(1, 10, [0, 0, 50, 50]), (1, 20, [60, 0, 50, 50]), (2, 10, [5, 5, 20, 20])]
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (image, category, box) in enumerate(boxes, start=1)
    ]
    images = [{"id": i, "width": 120, "height": 100, "file_name": f"{i}.jpg"} for i in (1, 2)]
    categories = [{"id": 10, "name": "cat"}, {"id": 20, "name": "dog"}, {"id": 30, "name": "cow"}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def result(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_perfect_results_score_one(truth: Path) -> None:
    results = [result(1, 10, [0, 0, 50, 50], 0.9), result(1, 20, [60, 0, 50, 50], 0.8), result(2, 10, [5, 5, 20, 20], 0.7)]
    ap = coco_ap(truth, results, "bbox")
    assert tuple(ap.metrics) == METRICS
    assert ap.metrics["APl"] == ap.metrics["ARl"] == -1  # there is no large object
    assert all(value == pytest.approx(1) for name, value in ap.metrics.items() if name not in ("APl", "ARl"))
    assert ap.per_class == pytest.approx({"cat": 1, "dog": 1})


def test_rows_a_file_and_a_list_are_scored_alike(truth: Path, tmp_path: Path) -> None:
    results = [result(1, 10, [0, 0, 50, 40], 0.9), result(1, 20, [65, 0, 50, 50], 0.8), result(2, 20, [5, 5, 20, 20], 0.7)]
    file = tmp_path / "bbox.json"
    file.write_text(json.dumps(results))
    rows = np.array([[d["image_id"], *d["bbox"], d["score"], d["category_id"]] for d in results])
    once_read = read_ground_truth(truth)
    expected = coco_ap(truth, results, "bbox")
    assert 0 < expected.metrics["AP"] < 1
    assert coco_ap(once_read, file, "bbox") == expected == coco_ap(once_read, rows, "bbox")


@pytest.mark.parametrize("nothing", [[], np.empty((0, 7))], ids=["list", "rows"])
def test_without_results_every_metric_is_zero(truth: Path, nothing: Any) -> None:
    metrics = coco_ap(truth, nothing, "bbox").metrics
    assert metrics == {name: -1.0 if name in ("APl", "ARl") else 0.0 for name in METRICS}
    errors = error_breakdown(truth, nothing, "bbox")
    assert errors["AP50"] == 0
    assert errors["count"] == {"Cls": 0, "Loc": 0, "Both": 0, "Dupe": 0, "Bkg": 0, "Miss": 3}


def test_the_kinds_of_errors_are_distinguished(truth: Path) -> None:
    results = [
        result(1, 10, [0, 0, 50, 50], 0.9),  # right
        result(1, 10, [1, 0, 50, 50], 0.8),  # found before
        result(1, 10, [60, 0, 50, 50], 0.7),  # a dog
        result(2, 10, [5, 5, 20, 8], 0.6),  # IoU 0.4
        result(2, 10, [80, 60, 20, 20], 0.5),  # nothing there
    ]
    errors = error_breakdown(truth, results, "bbox")
    assert errors["count"] == {"Cls": 1, "Loc": 1, "Both": 0, "Dupe": 1, "Bkg": 1, "Miss": 0}
    assert errors["gain"]["Cls"] > 0
    assert errors["AP50"] == pytest.approx(coco_ap(truth, results, "bbox").metrics["AP50"])


def test_categories_of_one_name_keep_their_own_precision() -> None:
    boxes = {1: [0, 0, 10, 10], 2: [50, 50, 10, 10]}
    truth = COCO({
        "images": [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 100}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": number, "bbox": box, "area": 100, "iscrowd": 0}
            for number, box in boxes.items()
        ],
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "cell"}, {"id": 3, "name": "none"}],
    })  # fmt: skip
    precision = coco_ap(truth, [{"image_id": 1, "category_id": 1, "bbox": boxes[1], "score": 0.9}], "bbox")
    assert precision.per_class == {"cell (id 1)": pytest.approx(1), "cell (id 2)": 0}


def test_labels_are_unique_and_on_one_line() -> None:
    assert category_labels({1: "a", 2: "b\n c", 3: ""}) == {1: "a", 2: "b c", 3: "(id 3)"}
    assert category_labels({1: "a", 2: "a", 3: "b"}) == {1: "a (id 1)", 2: "a (id 2)", 3: "b"}
    clash = {1: "a", 2: "a", 3: "a (id 1)"}
    assert category_labels(clash) == {1: "a (id 1)", 2: "a (id 2)", 3: "a (id 1) (id 3)"}
