"""Checks the study instance-count and measures its time: `python benchmarks/instance_count.py [--repeats 100]`.

First it runs the study with a replacement of the detector, which records its inputs and outputs, and checks every image cell by
cell and every output box by box. Then it measures the time for all numbers of visible objects from 1 to 100 with the demo's
detector, which has a query for each cell. The weights are random, which does not change the time. The result is the processor
time, so other processes do not count.
"""

from __future__ import annotations

import flows  # noqa: F401 # isort: skip  imported before torch, because it sets how torch's threads wait

import argparse
import os
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from detr_core.data.annotation_reader import read_annotations
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import read_dataset
from detr_core.data.transforms import evaluation_transform
from detr_core.model.common.normalisation import IMAGENET_MEAN, IMAGENET_STD
from detr_core.model.detr.config import DetrConfig
from detr_core.model.detr.model import Detr
from detr_core.reporter import Silent
from detr_core.sources.scenes import generate_scenes
from detr_core.structures import Padding, SoftmaxOutput
from detr_core.studies.measurements.instance_count import instance_count
from detr_core.studies.measurements.instance_count_config import InstanceCountConfig
from detr_core.studies.measurements.object_grid import Crop, clear_objects
from detr_core.studies.study import StudyInputs
from detr_core.wording import counted
from flows.profile.settings import load

ALLOWED = 120.0  # processor seconds: one minute on two cores
GRID, CELL = 10, 9  # number of cells per side, and side of a cell in pixels; the demo's images have 96 pixels
CPU = torch.device("cpu")


def main() -> None:
    """Prints the table, and exits with 1 if a count is wrong or the study takes more than ALLOWED seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repeats", type=int, default=100, help="repeats for each number of visible objects (default: %(default)s)"
    )
    repeats = parser.parse_args().repeats
    settings = load("demo")
    study, detector, data = settings.studies.evaluating["instance-count"], settings.detector, settings.data.scenes
    assert isinstance(study, InstanceCountConfig)
    assert isinstance(detector, DetrConfig)
    assert data is not None  # the demo's data are scenes
    with TemporaryDirectory() as folder:
        generate_scenes(replace(data, train=1, val=100), 0, Path(folder), 1, Silent())
        split = read_dataset(Path(folder))["val"]
        dataset = CocoDataset(split, "instances", masks=False, transform=evaluation_transform(None), seed=0)
        name = dataset.categories[0].name
        study = replace(study, grid=GRID, canvas=GRID * CELL, classes=(name,), shown=GRID**2)
        wrong = count_mistakes(dataset, replace(study, repeats=4, objects=2))
        torch.manual_seed(0)
        model = Detr(replace(detector, queries=GRID**2), len(dataset.categories), mask_head=False)
        began, worked = time.perf_counter(), time.process_time()
        instance_count(inputs_of(model, dataset), dataset, replace(study, repeats=repeats))
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    table = Table("images", "wrong cells", "wrong counts", "seconds", "processor seconds", "allowed")
    table.add_row(f"{GRID**2 * repeats:,}", *map(str, wrong), f"{seconds:.1f}", f"{cpu:.1f}", f"{ALLOWED:.0f}")
    Console().print(table)
    Console().print(f"{counted(torch.get_num_threads(), 'thread')}, load {os.getloadavg()[0]:.1f}")
    if any(wrong) or cpu > ALLOWED:
        sys.exit(f"expected no wrong cell or count, and at most {ALLOWED:.0f} processor seconds")


class Guesses(nn.Module):
    """A detector that returns boxes near random cells with random classes and scores, and records its inputs and outputs."""

    def __init__(self, classes: int, study: InstanceCountConfig) -> None:
        super().__init__()
        self.classes, self.study, self.generator = classes, study, torch.Generator().manual_seed(0)
        self.images: list[Tensor] = []
        self.outputs: list[SoftmaxOutput] = []

    def forward(self, images: Tensor, padding: Padding) -> SoftmaxOutput:
        scale = 255 * torch.tensor([IMAGENET_MEAN, IMAGENET_STD]).view(2, 3, 1, 1)
        self.images += [*(images * scale[1] + scale[0]).round().to(torch.uint8)]
        shape = (1, len(images), GRID**2)
        centers = (torch.randint(0, GRID, (*shape, 2), generator=self.generator) + 0.5) / GRID
        boxes = torch.cat([centers, torch.full((*shape, 2), 0.8 / GRID)], -1)
        boxes = boxes * (1 + 0.1 * torch.randn(*shape, 4, generator=self.generator))
        logits = 3 * torch.randn(*shape, self.classes + 1, generator=self.generator)
        nothing = torch.zeros(0)
        output = SoftmaxOutput(logits, boxes, nothing, nothing, nothing, nothing)
        self.outputs += [replace(output, logits=logits[-1, i], boxes=boxes[-1, i]) for i in range(len(images))]
        return output


class AnyModel(StudyInputs):
    """The inputs of the study, with a model that stands in for a DETR."""

    def detr(self, study: str) -> Detr:
        return cast(Detr, self.model)


def inputs_of(model: nn.Module, dataset: CocoDataset) -> StudyInputs:
    """Returns the inputs of the study for this model and the dataset's split."""
    splits = {"train": dataset.split, "val": dataset.split}
    return AnyModel(cast(Detr, model), dataset.categories, Path("none.pt"), splits, CPU, 0, Silent())


def count_mistakes(dataset: CocoDataset, study: InstanceCountConfig) -> tuple[int, int]:
    """Returns the number of cells that the study draws wrongly, and the number of images whose cells it counts wrongly."""
    guesses = Guesses(len(dataset.categories), study)
    (counted,) = instance_count(inputs_of(guesses, dataset), dataset, study)
    annotations = read_annotations(dataset.split, "instances", masks=False)
    crops = clear_objects(annotations, 0, study.objects, CELL, study.object_size)
    drawn_wrong = counted_wrong = 0
    images, outputs = iter(guesses.images), iter(guesses.outputs)
    for turn, crop in enumerate(crops):
        for number, repeat in product(range(1, GRID**2 + 1), range(turn, study.repeats, len(crops))):
            visible, wrong = visible_cells(next(images), crop, study.fill)
            drawn_wrong += wrong + abs(len(visible) - number)
            detected = detected_cells(next(outputs), crop, study) & visible
            counted_wrong += len(detected) != counted.detected[number - 1, repeat]
    assert counted.detected.sum() > 0
    return drawn_wrong, counted_wrong


def visible_cells(image: Tensor, crop: Crop, fill: tuple[int, int, int]) -> tuple[set[int], int]:
    """Returns the cells that show the object, and the number of cells that show neither the object nor the fill colour."""
    visible, wrong = set(), 0
    for cell, (row, column) in enumerate(product(range(GRID), repeat=2)):
        pixels = image[:, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        if torch.equal(pixels, crop.image):
            visible.add(cell)
        elif not (pixels == torch.tensor(fill).view(3, 1, 1)).all():
            wrong += 1
    return visible, wrong


def detected_cells(output: SoftmaxOutput, crop: Crop, study: InstanceCountConfig) -> set[int]:
    """Returns the cells that a box of class 0 detects: those with the largest IoU, if the score and the IoU are high enough."""
    cells = set()
    left, top, right, bottom = crop.box.tolist()
    cell_boxes = [
        (x * CELL + left, y * CELL + top, x * CELL + right, y * CELL + bottom) for y, x in product(range(GRID), repeat=2)
    ]
    for probabilities, box in zip(output.logits.softmax(-1)[:, :-1].tolist(), output.boxes.tolist(), strict=True):
        if max(probabilities) == probabilities[0] >= study.score:
            x, y, width, height = (GRID * CELL * value for value in box)
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            overlaps = [overlap(corners, cell_box) for cell_box in cell_boxes]
            if max(overlaps) >= study.iou:
                cells.add(overlaps.index(max(overlaps)))
    return cells


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Returns the IoU of two boxes in xyxy."""
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


if __name__ == "__main__":
    main()
