"""The study scoring computes empty-slot override and score thresholds from one forward pass."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hotcoco import COCO

from detr_core.config import ConfigError, build
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.evaluate.average_precision import matched
from detr_core.evaluate.metric_names import METRICS
from detr_core.evaluate.predictions import average_precision_of
from detr_core.studies.evaluating.scoring import ScoringConfig
from detr_core.studies.measurements.scoring import Selection, scoring, write_scores
from tests.recording_reporter import RecordingReporter
from tests.tiny_detector import detector, evaluation_data, study_inputs

VALUES: dict[str, Any] = {"paper": "section 4.1", "scores": [0, 0.2, 0.6], "batch_size": 4, "resize": None}


@pytest.mark.parametrize("scores", [[], [0.5, 0.5], [0.5, 0.2], [-0.1], [0.2, 1.0]])
def test_invalid_thresholds_are_refused(scores: list[float]) -> None:
    with pytest.raises(ConfigError, match="scores: expected"):
        build(ScoringConfig, VALUES | {"scores": scores}, "a.yaml")


def test_one_pass_gives_the_metrics_of_each_threshold_with_and_without_override(dataset: CocoDataset, split: Split) -> None:
    model = detector(dataset.categories, mask_head=False)
    seen: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    results = scoring(study_inputs(model, split, RecordingReporter()), dataset, VALUES["scores"], 4).selections
    assert sum(seen) == len(dataset)
    assert [(scored.empty_slot_override, scored.threshold) for scored in results] == [
        (override, score) for override in (True, False) for score in (0, 0.2, 0.6)
    ]
    everything, *_ = results
    plain = average_precision_of(model, dataset.categories, evaluation_data(dataset))
    assert {name: everything.metrics[name] for name in METRICS} == pytest.approx(plain)
    for selections in results[:3], results[3:]:
        recalls = [scored.metrics["recall"] for scored in selections]
        assert recalls == sorted(recalls, reverse=True)
    assert results[0].metrics["recall"] >= results[3].metrics["recall"]


def instance(number: int, image: int, x: float, crowd: int = 0) -> dict[str, Any]:
    box = [x, 0, 10, 10]
    return {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": 100, "iscrowd": crowd}


def test_detections_are_matched_once_and_crowds_do_not_count() -> None:
    truth = COCO({
        "images": [{"id": i, "width": 100, "height": 50} for i in (1, 2)],
        "annotations": [instance(1, 1, 0), instance(2, 1, 40), instance(3, 1, 70, crowd=1), instance(4, 2, 0)],
        "categories": [{"id": 1, "name": "cat"}],
    })  # fmt: skip
    rows = np.array([
        [1, 0, 0, 10, 10, 0.9, 1],   # found
        [1, 0, 0, 10, 11, 0.8, 1],   # the same again
        [1, 41, 0, 10, 10, 0.7, 1],  # found
        [1, 70, 0, 10, 10, 0.6, 1],  # in a crowd
        [1, 20, 0, 10, 10, 0.5, 1],  # nothing there
    ])  # fmt: skip
    matches = matched(truth, rows, iou=0.5)
    assert matches.objects == 3
    assert dict(zip(matches.scores.tolist(), matches.true.tolist(), strict=True)) == {
        0.9: True,
        0.8: False,
        0.7: True,
        0.5: False,
    }
    nothing = matched(truth, rows[:0], iou=0.5)
    assert (len(nothing.scores), nothing.objects) == (0, 3)


def test_without_detections_all_metrics_are_zero(dataset: CocoDataset, split: Split) -> None:
    model = detector(dataset.categories, mask_head=False)
    model.class_embed.bias.data[-1] = 1e4  # every query says no-object
    results = scoring(study_inputs(model, split, RecordingReporter()), dataset, VALUES["scores"], 4).selections
    assert {scored.metrics[name] for scored in results[3:] for name in ("AP", "precision", "recall", "F1")} == {0.0}


def test_the_written_files_hold_every_selection(tmp_path: Path) -> None:
    metrics = dict.fromkeys((*METRICS, "precision", "recall", "F1"), 0.5)
    write_scores([Selection(True, 0.0, metrics), Selection(False, 0.5, metrics | {"F1": 0.25})], tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text())[1]["threshold"] == 0.5
    assert json.loads((tmp_path / "metrics.json").read_text())["override_off/score_0.5/F1"] == 0.25
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [(row["empty_slot_override"], row["threshold"], row["F1"]) for row in rows] == [
        ("True", "0.0", "0.5"), ("False", "0.5", "0.25"),
    ]  # fmt: skip
