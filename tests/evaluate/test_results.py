"""COCO's file formats: predictions that equal the ground truth must score 1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from torchvision.ops import box_convert

from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import DatasetError, Split
from detr_core.evaluate.boxes import Detections
from detr_core.evaluate.ground_truth import has_masks, instances
from detr_core.evaluate.inference import classes_in
from detr_core.evaluate.predictions import evaluate
from detr_core.evaluate.results import box_results, mask_results, panoptic_result, result_rows, things_only
from detr_core.structures import Category, Segment
from tests.tiny_detector import dataset_of


def test_the_ground_truth_as_prediction_scores_one(split: Split, tmp_path: Path) -> None:
    assert split.instances is not None
    dataset = CocoDataset(split, "panoptic", masks=True, transform=None, seed=0)
    # A detector knows its classes in an order of its own, and one that the dataset doesn't have.
    categories = [Category(999, "unicorn", True), *reversed(dataset.categories)]
    classes = classes_in(categories, dataset)
    (tmp_path / "panoptic").mkdir()
    boxes, masks, panoptic = [], [], []
    for sample in (dataset[i] for i in range(len(dataset))):
        target = sample.target
        assert target.masks is not None
        height, width = target.original_size
        labels = len(dataset.categories) - target.labels
        xyxy = box_convert(target.boxes, "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
        detections = Detections(torch.linspace(0.5, 0.9, len(labels)), labels, xyxy, torch.arange(len(labels)))
        things = things_only(detections, classes)
        boxes += box_results(result_rows(things, target.image_id, classes))
        masks += mask_results(things, target.masks[things.queries], target.image_id, classes)
        id_map = target.masks.byte().argmax(0).int().numpy()
        segments = [
            Segment(id=i, isthing=classes.isthing[label], category_id=label, area=int((id_map == i).sum()))
            for i, label in enumerate(labels.tolist())
        ]
        panoptic.append(panoptic_result(id_map, segments, target.image_id, classes, tmp_path / "panoptic"))
    (tmp_path / "bbox.json").write_text(json.dumps(boxes))
    (tmp_path / "segm.json").write_text(json.dumps(masks))
    (tmp_path / "panoptic.json").write_text(json.dumps({"annotations": panoptic}))
    metrics = evaluate(tmp_path, split)
    for name in ("AP", "AP50", "AR100", "mask/AP", "mask/AP75", "PQ", "SQ", "RQ", "PQ_things", "PQ_stuff"):
        assert metrics[f"val/{name}"] == pytest.approx(1, abs=1e-4), name
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    per_class = json.loads((tmp_path / "per_class.json").read_text())
    things = {category["name"] for category in json.loads(split.instances.read_text())["categories"]}
    assert set(per_class["bbox"]) == set(per_class["segm"]) <= things
    assert set(per_class["panoptic"]) <= {category.name for category in dataset.categories}
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert sum(errors["bbox"]["count"].values()) == sum(errors["segm"]["count"].values()) == 0


def test_no_detections_give_no_results(split: Split) -> None:
    dataset = dataset_of(split)
    classes = classes_in(dataset.categories, dataset)
    nothing = Detections(torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0, 4), torch.empty(0, dtype=torch.int64))
    assert box_results(result_rows(nothing, 1, classes)) == []
    assert mask_results(nothing, torch.zeros(0, 5, 6, dtype=torch.bool), 1, classes) == []


def test_a_map_without_segments_is_written_as_zeros(split: Split, tmp_path: Path) -> None:
    dataset = dataset_of(split)
    annotation = panoptic_result(np.zeros((5, 6), np.int32), [], 42, classes_in(dataset.categories, dataset), tmp_path)
    assert annotation == {"image_id": 42, "file_name": "000000000042.png", "segments_info": []}
    assert not np.array(Image.open(tmp_path / "000000000042.png")).any()


def test_instances_from_a_panoptic_file_are_its_things(split: Split) -> None:
    assert split.instances is not None
    ours = instances(Split("val", split.images, None, split.panoptic, split.panoptic_masks))
    theirs = COCO(str(split.instances))
    key = ["image_id", "category_id", "bbox"]
    assert sorted([a[k] for k in key] for a in ours.dataset["annotations"]) == sorted(
        [a[k] for k in key] for a in theirs.dataset["annotations"]
    )
    assert has_masks(instances(split))
    assert not has_masks(ours)
    assert [category["id"] for category in ours.dataset["categories"]] == sorted(theirs.getCatIds())


def test_categories_that_are_not_the_datasets_are_refused(split: Split) -> None:
    dataset = dataset_of(split)
    with pytest.raises(
        DatasetError, match=r"panoptic_val\.json: categories: expected some of the checkpoint's categories, found none"
    ):
        classes_in([Category(999, "unicorn", True)], dataset)
    first = dataset.categories[0]
    with pytest.raises(
        DatasetError, match=rf"expected id {first.id} to be 'unicorn', as in the checkpoint, found {first.name!r}"
    ):
        classes_in([Category(first.id, "unicorn", True)], dataset)
