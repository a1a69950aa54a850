"""The study decoder-nms computes its table from one forward pass."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.evaluate.boxes import Detections
from detr_core.evaluate.metric_names import METRICS
from detr_core.evaluate.predictions import average_precision_of
from detr_core.reporter import Silent
from detr_core.studies.claims import read_measured, write_measured
from detr_core.studies.evaluating.decoder_nms import CLAIMS
from detr_core.studies.measurements.decoder_nms import Cell, decoder_nms, kept_by_nms, write_cells
from tests.recording_reporter import RecordingReporter
from tests.tiny_detector import detector, evaluation_data, study_inputs


def test_one_pass_gives_a_cell_for_each_depth_and_nms(dataset: CocoDataset, split: Split) -> None:
    model = detector(dataset.categories, mask_head=False)
    seen: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    reporter = RecordingReporter()
    result = decoder_nms(study_inputs(model, split, reporter), dataset, (None, 0.7, 0.01), batch_size=4, claims=CLAIMS)
    cells = result.cells
    assert sum(seen) == len(dataset) == reporter.last_progress[0]
    assert [(cell.decoder_depth, cell.nms) for cell in cells] == [(d, n) for d in (1, 2, 3) for n in (None, 0.7, 0.01)]
    assert all(tuple(cell.metrics) == METRICS for cell in cells)
    last = next(cell for cell in cells if (cell.decoder_depth, cell.nms) == (3, None))
    assert last.metrics == pytest.approx(average_precision_of(model, dataset.categories, evaluation_data(dataset)))


def test_the_claims_are_differences_of_the_cells(dataset: CocoDataset, split: Split, tmp_path: Path) -> None:
    model = detector(dataset.categories, mask_head=False)
    result = decoder_nms(study_inputs(model, split, Silent()), dataset, (None, 0.7, 0.01), batch_size=4, claims=CLAIMS)
    ap = {(cell.decoder_depth, cell.nms): cell.metrics["AP"] for cell in result.cells}
    rises, helps, costs = result.claims
    assert [comparison.what for comparison in rises.comparisons] == ["layer 2 against layer 1", "layer 3 against layer 2"]
    for comparison, layer in zip(rises.comparisons, (2, 3), strict=True):
        assert comparison.difference.first == ap[layer - 1, None]
        assert comparison.difference.second == pytest.approx(ap[layer, None])
    first = helps.comparisons[0]
    assert first.what == "NMS 0.7 after layer 1"
    assert first.difference.value == pytest.approx(ap[1, 0.7] - ap[1, None])
    assert helps.comparisons[2].what == "gain by NMS 0.7 after layer 1 against layer 3"
    assert helps.comparisons[2].difference.value == pytest.approx(ap[1, 0.7] - ap[1, None] - ap[3, 0.7] + ap[3, None])
    assert costs.comparisons[0].difference.value == pytest.approx(ap[3, None] - ap[3, 0.7])
    for claim in result.claims:
        for comparison in claim.comparisons:
            low, high = comparison.difference.low, comparison.difference.high
            assert low is not None
            assert high is not None
            assert low <= comparison.difference.value + 1e-12
            assert comparison.difference.value - 1e-12 <= high
    write_measured(result.claims, tmp_path)
    assert read_measured(tmp_path) == result.claims


def test_nms_stays_within_a_class_of_an_image() -> None:
    generator = torch.Generator().manual_seed(0)
    count = 60
    corner = torch.rand(count, 2, generator=generator) * 400 - 200  # some boxes reach far out of the image
    boxes = torch.cat([corner, corner + 100 + 50 * torch.rand(count, 2, generator=generator)], dim=1)
    labels = torch.randint(0, 3, (count,), generator=generator)
    detections = Detections(torch.rand(count, generator=generator), labels, boxes, torch.arange(count))
    image = np.repeat([7, 900], [40, 20])
    kept = kept_by_nms(detections, image, 0.3)
    expected: list[int] = []
    for image_id in (7, 900):
        for label in range(3):
            members = ((labels == label) & (torch.from_numpy(image) == image_id)).nonzero()[:, 0]
            expected += members[nms(boxes[members], detections.scores[members], 0.3)].tolist()
    assert kept.nonzero()[0].tolist() == sorted(expected)
    assert len(expected) < count
    assert kept_by_nms(detections.chosen(labels > 5), image[:0], 0.3).tolist() == []


def test_the_written_files_hold_every_cell(tmp_path: Path) -> None:
    metrics = dict.fromkeys(METRICS, 0.5)
    cells = [Cell(1, None, metrics), Cell(4, 0.7, {**metrics, "AP": 0.25})]
    write_cells(cells, tmp_path)
    assert json.loads((tmp_path / "cells.json").read_text())[1] == {
        "decoder_depth": 4,
        "nms": 0.7,
        "metrics": {**metrics, "AP": 0.25},
    }
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["depth_1/nms_off/AP"] == 0.5
    assert metrics["depth_4/nms_0.7/AP"] == 0.25
    rows = list(csv.DictReader((tmp_path / "cells.csv").open()))
    assert [(row["decoder_depth"], row["nms"], row["AP"]) for row in rows] == [("1", "off", "0.5"), ("4", "0.7", "0.25")]
