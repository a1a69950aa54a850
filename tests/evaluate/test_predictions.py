"""The whole evaluation from a detector to COCO files and metrics, on generated scenes and on real images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from detr_core.data.batching import collate
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import ResizeConfig
from detr_core.data.splits import Split
from detr_core.data.transforms import evaluation_transform
from detr_core.evaluate import inference
from detr_core.evaluate.boxes import postprocess_softmax
from detr_core.evaluate.config import EvaluateConfig, MergingConfig
from detr_core.evaluate.masks import instance_masks
from detr_core.evaluate.metric_names import ALL_METRICS, METRICS
from detr_core.evaluate.predictions import average_precision_of, evaluate, predict
from detr_core.model.checkpoint import Checkpoint
from detr_core.model.common.normalisation import normalise
from detr_core.model.detr.model import Detr
from tests.real_data import REAL, needs_real_data
from tests.recording_reporter import RecordingReporter
from tests.tiny_detector import dataset_of, detector, evaluation_data

CONFIG = EvaluateConfig(
    batch_size=4, resize=None, empty_slot_override=True, panoptic=MergingConfig(threshold=0.6, smallest=4, mode="published")
)


@pytest.fixture(scope="module")
def model(dataset: CocoDataset) -> Detr:
    """Returns an untrained detector with a mask head, whose scores are spread between 0 and 1."""
    return detector(dataset.categories, mask_head=True)


def predicted(model: Detr, dataset: CocoDataset, folder: Path, config: EvaluateConfig = CONFIG) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    predict(Checkpoint(model, dataset.categories, {}), evaluation_data(dataset, config.batch_size), config, folder)
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_the_files_of_one_evaluation_agree_with_each_other(model: Detr, dataset: CocoDataset, tmp_path: Path) -> None:
    reporter = RecordingReporter()
    predict(Checkpoint(model, dataset.categories, {}), evaluation_data(dataset, reporter=reporter), CONFIG, tmp_path)
    assert reporter.last_progress == (6, 6)
    things = {category.id for category in dataset.categories if category.isthing}
    boxes, masks, panoptic = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("bbox", "segm", "panoptic"))
    assert {d["category_id"] for d in boxes} <= things
    assert {d["image_id"] for d in boxes} <= set(dataset.image_ids)
    # A mask for each box, without the box.
    fields = ("image_id", "category_id", "score")
    assert [{k: d[k] for k in fields} for d in masks] == [{k: d[k] for k in fields} for d in boxes]
    assert set(masks[0]) == {*fields, "segmentation"}
    assert [a["image_id"] for a in panoptic["annotations"]] == dataset.image_ids
    assert sum(len(a["segments_info"]) for a in panoptic["annotations"]) > 6
    for annotation in panoptic["annotations"]:
        png = np.array(Image.open(tmp_path / "panoptic" / annotation["file_name"])).astype(np.int64)
        ids, areas = np.unique(png @ [1, 256, 256**2], return_counts=True)
        # Every pixel belongs to a segment, or none does.
        segments = {s["id"]: s["area"] for s in annotation["segments_info"]} or {0: png[..., 0].size}
        assert segments == dict(zip(ids.tolist(), areas.tolist(), strict=True))


def test_masks_of_chosen_queries_are_those_of_running_all(model: Detr, dataset: CocoDataset, tmp_path: Path) -> None:
    files = predicted(model, dataset, tmp_path)
    batch = collate([dataset[0]])
    target = batch.targets[0]
    with torch.inference_mode():
        output = model.eval()(normalise(batch.images, batch.padding), batch.padding)
        queries = torch.arange(output.logits.shape[2])
        logits = model.masks(output, torch.zeros_like(queries), queries)
    detections = postprocess_softmax(output.logits[-1], output.boxes[-1], [target.original_size], empty_slot_override=True)[0]
    things = [q for q in queries.tolist() if dataset.categories[int(detections.labels[q])].isthing]
    all_masks = instance_masks(logits, target.size, target.size, target.original_size).numpy()
    results = [d for d in files["segm"] if d["image_id"] == target.image_id]
    assert len(results) == len(things)
    for query, entry in zip(things, results, strict=True):
        differing = rle.decode(entry["segmentation"]).astype(bool) != all_masks[query]
        assert differing.mean() < 1e-3  # another order of summation may move a pixel at the threshold


def test_the_batch_size_and_the_chunks_of_masks_change_nothing(
    model: Detr, dataset: CocoDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = predicted(model, dataset, tmp_path / "one", replace(CONFIG, batch_size=1))
    monkeypatch.setattr(inference, "MASK_PIXELS", 1)
    all_at_once = predicted(model, dataset, tmp_path / "all", replace(CONFIG, batch_size=6))
    for ours, theirs in zip(one["bbox"], all_at_once["bbox"], strict=True):
        assert (ours["image_id"], ours["category_id"]) == (theirs["image_id"], theirs["category_id"])
        np.testing.assert_allclose([*ours["bbox"], ours["score"]], [*theirs["bbox"], theirs["score"]], rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(one["panoptic"]["annotations"], all_at_once["panoptic"]["annotations"], strict=True):
        assert [s["category_id"] for s in ours["segments_info"]] == [s["category_id"] for s in theirs["segments_info"]]


def test_images_of_any_sizes_give_the_same_whatever_the_batch_size(split: Split, tmp_path: Path) -> None:
    # The scenes, cut to three sizes: were they batched together, padding would reach the backbone.
    assert split.instances is not None
    cut = json.loads(split.instances.read_text())
    (tmp_path / "images").mkdir()
    for image, (height, width) in zip(cut["images"], [(64, 64), (48, 64), (64, 48)] * 2, strict=True):
        Image.open(split.images / image["file_name"]).crop((0, 0, width, height)).save(tmp_path / "images" / image["file_name"])
        image |= {"height": height, "width": width}
    (tmp_path / "instances.json").write_text(json.dumps(cut))
    mixed = Split("val", tmp_path / "images", tmp_path / "instances.json", None, None)
    dataset = CocoDataset(mixed, "instances", masks=False, transform=evaluation_transform(None), seed=0)
    model = detector(dataset.categories, mask_head=False)
    one = predicted(model, dataset, tmp_path / "one", replace(CONFIG, batch_size=1))
    four = predicted(model, dataset, tmp_path / "four", replace(CONFIG, batch_size=4))
    assert len(one["bbox"]) > 0
    for ours, theirs in zip(one["bbox"], four["bbox"], strict=True):
        assert (ours["image_id"], ours["category_id"]) == (theirs["image_id"], theirs["category_id"])
        np.testing.assert_allclose([*ours["bbox"], ours["score"]], [*theirs["bbox"], theirs["score"]], rtol=1e-4, atol=1e-4)
    assert evaluate(tmp_path / "four", mixed) == pytest.approx(evaluate(tmp_path / "one", mixed), abs=1e-6)


def test_without_override_there_are_fewer_detections(model: Detr, dataset: CocoDataset, tmp_path: Path) -> None:
    every = predicted(model, dataset, tmp_path / "every")
    sure = predicted(model, dataset, tmp_path / "sure", replace(CONFIG, empty_slot_override=False))
    assert 0 < len(sure["bbox"]) < len(every["bbox"])
    assert all(entry in every["bbox"] for entry in sure["bbox"])
    assert len(sure["segm"]) == len(sure["bbox"])
    assert sure["panoptic"] == every["panoptic"]


def test_without_kept_queries_every_metric_is_written_and_pq_is_zero(
    model: Detr, dataset: CocoDataset, split: Split, tmp_path: Path
) -> None:
    config = replace(CONFIG, panoptic=MergingConfig(threshold=1.0, smallest=4, mode="paper"))
    files = predicted(model, dataset, tmp_path, config)
    assert all(annotation["segments_info"] == [] for annotation in files["panoptic"]["annotations"])
    metrics = evaluate(tmp_path, split)
    assert metrics["val/PQ"] == 0
    assert set(metrics) == {f"val/{name}" for name in ALL_METRICS}, "the claims of a profile are about metrics with these names"


def test_a_detector_without_mask_head_writes_boxes_alone(dataset: CocoDataset, split: Split, tmp_path: Path) -> None:
    files = predicted(detector(dataset.categories, mask_head=False), dataset, tmp_path)
    assert set(files) == {"bbox"}
    assert set(evaluate(tmp_path, split)) == {f"val/{name}" for name in METRICS}


def test_validation_in_memory_gives_what_the_files_give(model: Detr, dataset: CocoDataset, split: Split, tmp_path: Path) -> None:
    predicted(model, dataset, tmp_path)
    metrics = evaluate(tmp_path, split)
    model.train()
    model.backbone.eval()
    before = [module.training for module in model.modules()]
    in_memory = average_precision_of(model, dataset.categories, evaluation_data(dataset))
    assert [module.training for module in model.modules()] == before
    assert {f"val/{name}": value for name, value in in_memory.items()} == pytest.approx(
        {name: value for name, value in metrics.items() if name.removeprefix("val/") in METRICS}
    )
    # With the panoptic file alone the boxes are the same, so the metrics computed in memory are too.
    panoptic_only = replace(split, instances=None)
    assert average_precision_of(model, dataset.categories, evaluation_data(dataset_of(panoptic_only))) == pytest.approx(in_memory)
    assert {name for name in evaluate(tmp_path, panoptic_only) if "mask" in name} == set()


@needs_real_data
@pytest.mark.parametrize("mode", ["published", "paper"])
def test_real_images_give_results_of_their_sizes(tmp_path: Path, mode: Any) -> None:
    root = (REAL / "coco_panoptic").resolve()
    split = Split("val", root / "images", root / "instances.json", root / "panoptic.json", root / "panoptic")
    resize = ResizeConfig(short=(128,), longest=213)
    dataset = CocoDataset(split, "panoptic", masks=False, transform=evaluation_transform(resize), seed=0)
    config = replace(CONFIG, resize=resize, panoptic=replace(CONFIG.panoptic, threshold=0.3, mode=mode))
    files = predicted(detector(dataset.categories, mask_head=True), dataset, tmp_path, config)
    sizes = dict(zip(dataset.image_ids, dataset.sizes, strict=True))
    assert all(tuple(entry["segmentation"]["size"]) == sizes[entry["image_id"]] for entry in files["segm"])
    for annotation in files["panoptic"]["annotations"]:
        assert Image.open(tmp_path / "panoptic" / annotation["file_name"]).size == sizes[annotation["image_id"]][::-1]
    metrics = evaluate(tmp_path, split)
    assert {"val/AP", "val/mask/AP", "val/PQ", "val/SQ_things", "val/RQ_stuff"} <= set(metrics)
    assert all(-1 <= value <= 1 for value in metrics.values())
