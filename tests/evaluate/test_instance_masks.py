"""The masks of a mask head that was trained on instances alone: average precision as COCO computes it, and no panoptic map."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.data.transforms import evaluation_transform
from detr_core.evaluate.average_precision import coco_ap
from detr_core.evaluate.metric_names import METRICS
from detr_core.evaluate.predictions import evaluate, mask_metrics_of, predict
from detr_core.model.checkpoint import Checkpoint
from tests.evaluate.test_predictions import CONFIG
from tests.tiny_detector import detector, evaluation_data, scenes

SIZE = (100, 100)


def triangle(x: float, y: float, side: float) -> list[list[float]]:
    """A right-angled triangle, which covers half of its box."""
    return [[x, y, x + side, y, x, y + side]]


def run_lengths(polygons: list[list[float]]) -> dict[str, Any]:
    code = rle.merge(rle.frPyObjects(polygons, *SIZE))
    return {"size": list(SIZE), "counts": code["counts"].decode()}


def by_pycocotools(file: Path, results: list[dict[str, Any]]) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluator = COCOeval(truth, truth.loadRes(results), "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return dict(zip(METRICS, evaluator.stats.tolist(), strict=True))


def test_masks_of_instances_are_scored_as_coco_scores_them(tmp_path: Path) -> None:
    # The triangles have 800 pixels, so they are small (below 32² pixels), but their boxes of 40 x 40 would be medium.
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 800, "segmentation": triangle(0, 0, 40)},
        {"id": 2, "image_id": 2, "category_id": 1, "bbox": [9, 9, 40, 40], "area": 800,
         "segmentation": run_lengths(triangle(9, 9, 40))},
        {"id": 3, "image_id": 2, "category_id": 2, "bbox": [5, 50, 50, 50], "area": 2500, "iscrowd": 1,
         "segmentation": run_lengths([[5, 50, 55, 50, 55, 100, 5, 100]])},
    ]  # fmt: skip
    content = {
        "images": [{"id": i, "width": 100, "height": 100, "file_name": f"{i}.jpg"} for i in (1, 2)],
        "annotations": [{"iscrowd": 0, **annotation} for annotation in annotations],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    detections = [(1, 1, triangle(0, 0, 40), 0.5), (1, 1, triangle(50, 50, 40), 0.9), (2, 1, triangle(9, 9, 40), 0.4)]
    detections.append((2, 2, triangle(5, 50, 40), 0.8))  # in the crowd, which neither rewards nor punishes it
    results = [
        {"image_id": image, "category_id": category, "segmentation": run_lengths(mask), "score": score}
        for image, category, mask, score in detections
    ]
    metrics = coco_ap(file, results, "segm").metrics
    assert metrics == pytest.approx(by_pycocotools(file, results))
    # The false detection comes first: after two of three and three of three detections the precision is 2/3 at most.
    assert metrics["AP"] == pytest.approx(2 / 3)
    assert metrics["APs"] == pytest.approx(2 / 3), "the false detection is small, too, because its area is that of its mask"
    assert metrics["APm"] == metrics["APl"] == -1


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    whole = scenes(tmp_path_factory.mktemp("scenes"))
    return replace(whole, panoptic=None, panoptic_masks=None)


def test_a_mask_head_of_instances_has_mask_ap_as_pycocotools_and_no_panoptic_quality(split: Split, tmp_path: Path) -> None:
    dataset = CocoDataset(split, "instances", masks=False, transform=evaluation_transform(None), seed=0)
    model = detector(dataset.categories, mask_head=True)
    trained = Checkpoint(model, dataset.categories, {"mask_targets": "instances"})
    predict(trained, evaluation_data(dataset), CONFIG, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bbox.json", "segm.json"}
    results = json.loads((tmp_path / "segm.json").read_text())
    assert len(results) == len(dataset) * model.config.queries
    assert all("bbox" not in result for result in results), "COCO's evaluation would take areas from boxes"
    metrics = evaluate(tmp_path, split)
    assert {name for name in metrics if name.startswith(("val/PQ", "val/SQ", "val/RQ"))} == set()
    assert split.instances is not None
    theirs = by_pycocotools(split.instances, results)
    assert {name: metrics[f"val/mask/{name}"] for name in METRICS} == pytest.approx(theirs)
    in_memory = mask_metrics_of(model, dataset.categories, evaluation_data(dataset), True, None)
    assert {f"val/{name}": value for name, value in in_memory.items()} == pytest.approx(metrics)


def test_on_data_with_panoptic_annotations_it_claims_no_panoptic_quality_either(
    split: Split, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with_panoptic = scenes(tmp_path_factory.mktemp("scenes"))
    things = CocoDataset(split, "instances", masks=False, transform=evaluation_transform(None), seed=0)
    both = CocoDataset(with_panoptic, "panoptic", masks=False, transform=evaluation_transform(None), seed=0)
    trained = Checkpoint(detector(things.categories, mask_head=True), things.categories, {"mask_targets": "instances"})
    metrics = {}
    for name, dataset in (("things", things), ("both", both)):
        (tmp_path / name).mkdir()
        predict(trained, evaluation_data(dataset), CONFIG, tmp_path / name)
        metrics[name] = evaluate(tmp_path / name, dataset.split)
    assert metrics["both"] == metrics["things"]
    assert "val/mask/AP" in metrics["both"]


def test_masks_are_those_of_the_detections_whichever_else_are_computed(split: Split, tmp_path: Path) -> None:
    dataset = CocoDataset(split, "instances", masks=False, transform=evaluation_transform(None), seed=0)
    model = detector(dataset.categories, mask_head=True)
    masks = {}
    for name, meta in (("instances", {"mask_targets": "instances"}), ("panoptic", {})):
        (tmp_path / name).mkdir()
        predict(Checkpoint(model, dataset.categories, meta), evaluation_data(dataset), CONFIG, tmp_path / name)
        masks[name] = [rle.decode(entry["segmentation"]) for entry in json.loads((tmp_path / name / "segm.json").read_text())]
    assert len(masks["instances"]) == len(masks["panoptic"]) > 0
    differing = np.mean([np.mean(a != b) for a, b in zip(masks["instances"], masks["panoptic"], strict=True)])
    assert differing < 1e-4  # another order of summation may move a pixel at the threshold
