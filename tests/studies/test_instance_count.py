"""The study instance-count draws copies of one object on a grid and counts the detected ones."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detr_core.config import ConfigError, build
from detr_core.data.annotation_reader import read_annotations
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.studies.claims import SeedDifference
from detr_core.studies.measurements.instance_count import ClassCount, Example, detected_cells, instance_count, write_counts
from detr_core.studies.measurements.instance_count_config import InstanceCountConfig
from detr_core.studies.measurements.object_grid import Crop, clear_objects, masked, tiled
from tests.recording_reporter import RecordingReporter
from tests.tiny_detector import detector, study_inputs

VALUES: dict[str, Any] = {
    "paper": "Figure 5", "grid": 3, "canvas": 60, "object_size": 0.8, "fill": [10, 20, 30], "classes": None, "objects": 2,
    "repeats": 5, "score": 0.3, "iou": 0.5, "shown": 4, "batch_size": 8, "seed": 0,
}  # fmt: skip


def config(**changed: Any) -> InstanceCountConfig:
    return build(InstanceCountConfig, VALUES | changed, "a.yaml")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"canvas": 61}, "canvas: expected a multiple of grid 3, found 61"),
        ({"object_size": 0}, "object_size: expected a share above 0"),
        ({"fill": [0, 0, 256]}, "fill: expected three values of 0 to 255"),
        ({"classes": []}, "classes: expected null or one or more names"),
        ({"shown": 10}, "shown: expected 1 to all 9 cells, found 10"),
        ({"iou": 0}, "iou: expected an IoU between 0 and 1"),
        ({"repeats": 0}, "repeats: expected 1 or more"),
    ],
)  # fmt: skip
def test_an_invalid_study_is_refused(changed: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        config(**changed)


@given(st.data())
def test_masks_are_drawn_cell_by_cell(data: st.DataObject) -> None:
    grid, side, images = (data.draw(st.integers(1, 4)) for _ in range(3))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    crop = Crop(torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator), torch.tensor([0.0, 0.5, 1, 1]))
    visible = torch.rand(images, grid**2, generator=generator) < 0.5
    whole, boxes = tiled(crop, grid)
    drawn = masked(whole, visible, (1, 2, 3))
    for image, row, column in itertools.product(range(images), range(grid), range(grid)):
        cell = row * grid + column
        pixels = drawn[image, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
        expected = crop.image if visible[image, cell] else torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1)
        assert torch.equal(pixels, expected.expand(3, side, side))
        assert boxes[cell].tolist() == [column * side, row * side + 0.5, column * side + 1, row * side + 1]


def iou(a: list[float], b: list[float]) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.75])
def test_counts_are_those_of_brute_force(threshold: float) -> None:
    generator = torch.Generator().manual_seed(3)
    _, cells = tiled(Crop(torch.zeros(3, 10, 10, dtype=torch.uint8), torch.tensor([1.0, 1, 9, 9])), 4)
    images, queries = 20, 30
    boxes = cells[torch.randint(0, 16, (images, queries), generator=generator)]
    boxes = boxes + 2 * torch.randn(images, queries, 4, generator=generator)
    boxes[..., 2:] = torch.maximum(boxes[..., 2:], boxes[..., :2] + 0.5)
    scores = torch.rand(images, queries, generator=generator)
    labels = torch.randint(0, 2, (images, queries), generator=generator)
    detected = detected_cells(scores, labels, boxes, cells, 1, 0.4, threshold)
    for image in range(images):
        expected = set()
        for query in range(queries):
            overlaps = [iou(boxes[image, query].tolist(), cell) for cell in cells.tolist()]
            best = int(np.argmax(overlaps))
            if labels[image, query] == 1 and scores[image, query] >= 0.4 and overlaps[best] >= threshold:
                expected.add(best)
        assert set(detected[image].nonzero()[:, 0].tolist()) == expected
    assert 0 < detected.float().mean() < 1


def test_clear_objects_lie_whole_in_their_squares(split: Split) -> None:
    annotations = read_annotations(split, "instances", masks=False)
    everything = 0
    for label in range(len(annotations.categories)):
        crops = clear_objects(annotations, label, 100, 20, 0.8)
        everything += len(crops)
        for crop in crops:
            assert crop.image.shape == (3, 20, 20)
            x1, y1, x2, y2 = crop.box.tolist()
            assert min(x1, y1) >= 0
            assert max(x2, y2) <= 20
            assert max(x2 - x1, y2 - y1) == pytest.approx(16, abs=1.1)
    assert 0 < everything < len(annotations.labels), "objects at the border are left out"


def test_every_number_of_cells_is_counted(dataset: CocoDataset, split: Split) -> None:
    model = detector(dataset.categories, mask_head=False)
    sizes: list[torch.Size] = []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(inputs[0].shape))
    reporter = RecordingReporter()
    results = instance_count(study_inputs(model, split, reporter), dataset, config())
    things = [category.name for category in dataset.categories if category.isthing]
    assert [count.name for count in results] == things
    images = len(things) * 9 * 5
    assert sum(size[0] for size in sizes) == images == reporter.last_progress[0]
    assert {size[2:] for size in sizes} == {(60, 60)}
    truth = read_annotations(split, "instances", masks=False)
    for count in results:
        assert count.detected.shape == (9, 5)
        assert count.objects <= 2
        assert (count.detected <= np.arange(1, 10)[:, None]).all()
        label = things.index(count.name)
        counts = [(truth.labels[truth.first[i] : truth.first[i + 1]] == label).sum() for i in range(len(dataset))]
        assert count.most_in_training == max(counts)
        fill = (count.example.image == torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1)).all(0).view(3, 20, 3, 20)
        assert fill.all(3).all(1).sum() == 9 - 4 == 9 - count.example.visible
    again = instance_count(study_inputs(model, split, RecordingReporter()), dataset, config(batch_size=7))
    assert all((a.detected == b.detected).all() for a, b in zip(results, again, strict=True))


def test_an_unknown_class_is_refused(dataset: CocoDataset, split: Split) -> None:
    model = detector(dataset.categories, mask_head=False)
    for name in ("giraffe", "sky"):
        with pytest.raises(
            ConfigError, match=rf"classes: expected things of checkpoint and dataset \(.*circle.*\), found '{name}'"
        ):
            instance_count(study_inputs(model, split, RecordingReporter()), dataset, config(classes=[name]))


def test_classes_without_an_object_that_stands_free_are_left_out_or_refused(dataset: CocoDataset, split: Split) -> None:
    model, reporter = detector(dataset.categories, mask_head=False), RecordingReporter()
    few = config(object_size=0.35, canvas=12, repeats=1)  # so small in their squares that few squares fit into an image
    names = [count.name for count in instance_count(study_inputs(model, split, reporter), dataset, few)]
    left_out = {category.name for category in dataset.categories if category.isthing} - set(names)
    assert names
    assert left_out
    assert reporter.messages == [
        f"instance-count: the class {name!r} has no isolated object in an image and is left out" for name in sorted(left_out)
    ]
    asked = config(object_size=0.35, canvas=12, repeats=1, classes=sorted(left_out))
    with pytest.raises(ConfigError, match="classes: expected classes with an isolated object in an image, found"):
        instance_count(study_inputs(model, split, reporter), dataset, asked)
    with pytest.raises(ConfigError, match="classes: expected at least one class with an isolated object in an image, found"):
        instance_count(study_inputs(model, split, reporter), dataset, config(object_size=0.05))


EXAMPLE = Example(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.tensor([[0.0, 1, 2, 3]]), torch.tensor([0.5]), 2, 1)


def test_the_interval_is_over_objects_with_all_their_repeats() -> None:
    """Two objects: of four copies all of the first one are detected, in each repeat, and two of the second one."""
    detected = np.array([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3], [4, 2, 4, 2]])
    comparison = ClassCount("cat", 2, detected, EXAMPLE, objects=2).compared(2, 4)
    assert comparison.difference == SeedDifference(0.0, 0.25, 0.0, 0.5), "samples of one object, of the other, and of both"
    assert (comparison.what, comparison.units) == ("cat: 4 copies against 2", 2)
    assert comparison.names == ("2 copies of cat", "4 copies of cat")
    independent = ClassCount("cat", 2, np.repeat(detected, 25, axis=1), EXAMPLE, objects=100).compared(2, 4).difference
    assert independent.low is not None
    assert independent.low > 0.19, "a hundred objects say more than two"


def test_objects_with_more_repeats_count_more() -> None:
    detected = np.array([[1, 1, 1], [2, 1, 2]])
    difference = ClassCount("cat", 1, detected, EXAMPLE, objects=2).compared(1, 2).difference
    assert difference == SeedDifference(0.0, pytest.approx(1 / 6), 0.0, 0.5)


def test_one_object_gives_no_interval() -> None:
    comparison = ClassCount("cat", 1, np.array([[1, 1, 0], [1, 2, 2]]), EXAMPLE, objects=1).compared(1, 2)
    assert (comparison.difference.low, comparison.difference.high, comparison.units) == (None, None, 1)
    assert comparison.names == ("1 copy of cat", "2 copies of cat")


def test_the_written_files_hold_every_count(tmp_path: Path) -> None:
    results = [
        ClassCount("cat", 3, np.array([[1, 1], [1, 2]]), EXAMPLE, 2), ClassCount("dog", 1, np.array([[0, 1], [0, 0]]), EXAMPLE, 2)
    ]  # fmt: skip
    write_counts(results, tmp_path)
    cat, dog = json.loads((tmp_path / "counts.json").read_text())
    assert cat["missed"] == {"mean": [0.0, 0.25], "std": [0.0, 0.25]}
    assert dog["missed"]["mean"] == [0.5, 1.0]
    assert cat["example"] == {"file": "example_0.png", "visible": 2, "found": 1, "boxes": [[0, 1, 2, 3]], "scores": [0.5]}
    assert Image.open(tmp_path / "example_1.png").size == (4, 4)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"visible_1/missed": 0.25, "visible_2/missed": 0.625}
    rows = list(csv.DictReader((tmp_path / "counts.csv").open()))
    assert rows[1] == {"class": "cat", "visible": "2", "missed_mean": "0.25", "missed_std": "0.25"}
