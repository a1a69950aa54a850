"""Measures how many instances the detector detects in one image (section 4.3 and appendix of the paper).

Copies of one object fill a grid, and cells are masked at random. The study counts the visible copies that are missed, also for
numbers of copies that no training image contains.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.ops import box_iou

from detr_core.config import require
from detr_core.data.annotation_reader import read_annotations
from detr_core.data.annotations import Annotations
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.evaluate.boxes import in_one_row
from detr_core.evaluate.inference import classes_in
from detr_core.model.common.normalisation import normalise
from detr_core.model.detr.model import Detr
from detr_core.reporter import Reporter
from detr_core.structures import Padding, category_labels
from detr_core.studies.claims import Comparison, SeedDifference
from detr_core.studies.measurements.bootstrap import ratio_interval
from detr_core.studies.measurements.instance_count_config import InstanceCountConfig
from detr_core.studies.measurements.object_grid import Crop, clear_objects, masked, tiled
from detr_core.studies.study import StudyInputs
from detr_core.wording import counted


@dataclass(frozen=True)
class Example:
    """One image of the study.

    image: uint8 RGB [3, H, W]. boxes [N, 4], scores [N]: the detections of the class, xyxy in pixels. visible: the number of
    visible cells. detected: the number of detected cells.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    visible: int
    detected: int


@dataclass(frozen=True)
class ClassCount:
    """The result for one class.

    most_in_training: the largest number of its instances in a training image. detected [cells, repeats]: int64, the number of
    detected cells with 1, 2, ... visible cells. example: an image with `shown` visible cells. objects: the number of objects
    that the repeats show in turn.
    """

    name: str
    most_in_training: int
    detected: np.ndarray
    example: Example
    objects: int

    @property
    def missed(self) -> np.ndarray:
        """Returns the share of the visible cells that are missed, [cells, repeats]."""
        return 1 - self.detected / np.arange(1, len(self.detected) + 1)[:, None]

    def compared(self, few: int, many: int) -> Comparison:
        """Compares the missed share of two numbers of visible cells.

        The interval is over bootstrap samples of the objects, each with all its repeats: repeats of one object are not
        independent, and with all cells visible they are the same image.
        """
        missed, shown_object = self.missed, np.arange(self.detected.shape[1]) % self.objects
        repeats = np.bincount(shown_object, minlength=self.objects).astype(np.float64)
        sums = {
            cells: np.bincount(shown_object, weights=missed[cells - 1], minlength=self.objects).astype(np.float64)
            for cells in (few, many)
        }
        low, high = ratio_interval((sums[few], repeats), (sums[many], repeats)) or (None, None)
        means = missed.mean(1)
        difference = SeedDifference(float(means[few - 1]), float(means[many - 1]), low, high)
        names = f"{counted(few, 'copy', 'copies')} of {self.name}", f"{counted(many, 'copy', 'copies')} of {self.name}"
        return Comparison(f"{self.name}: {many} copies against {few}", difference, names, self.objects)


@torch.inference_mode()
def instance_count(inputs: StudyInputs, dataset: CocoDataset, config: InstanceCountConfig) -> list[ClassCount]:
    """Counts the detected cells for every class, number of visible cells and repeat.

    dataset: the source of the objects. The instances of the train split are counted.
    Raises CheckpointError for a detector of another kind than DETR, and ConfigError, before the model runs, if a class of
    `config.classes` is not a thing of the checkpoint and the dataset, or has no isolated object. If `config.classes` is None,
    such classes are left out.
    """
    model, categories = inputs.detr("instance-count"), inputs.categories
    shared_classes = classes_in(categories, dataset)
    annotations, trained_on = (_things(split) for split in (dataset.split, inputs.splits["train"]))
    # The names come from the dataset, because a published checkpoint may have no names.
    label_of = {category.id: label for label, category in enumerate(categories) if shared_classes.thing[label]}
    labels = category_labels({category.id: category.name for category in annotations.categories})
    id_of = {label: number for number, label in labels.items() if number in label_of}
    names = list(id_of)
    requested = names if config.classes is None else config.classes
    for name in requested:
        require(name in names, "instance_count.classes", f"things of checkpoint and dataset ({', '.join(names)})", name)
    crops = {name: _crops(annotations, id_of[name], config) for name in requested}
    for name in [name for name, detected in crops.items() if not detected]:
        # Without `classes`, a class without such an object is left out; a class in `classes` must have one.
        require(config.classes is None, "instance_count.classes", "classes with an isolated object in an image", name)
        inputs.reporter.message(f"instance-count: the class {name!r} has no isolated object in an image and is left out")
        del crops[name]
    require(len(crops) > 0, "instance_count.classes", "at least one class with an isolated object in an image", names)
    largest_counts = _largest_counts(trained_on)
    training, results = model.training, []
    model.eval()
    try:
        progress = _Progress(inputs.reporter, len(crops) * config.grid**2 * config.repeats)
        for index, name in enumerate(crops):
            category_id = id_of[name]
            rng = np.random.default_rng([config.seed, index])
            detected, example = _count(model, label_of[category_id], crops[name], config, rng, inputs.device, progress)
            results.append(ClassCount(name, largest_counts.get(category_id, 0), detected, example, len(crops[name])))
    finally:
        model.train(training)
    return results


def write_counts(results: Sequence[ClassCount], folder: Path) -> None:
    """Writes `counts.json`, `counts.csv` (one row per class and number of visible cells), `metrics.json` and example_<i>.png.

    counts.json: a list with one entry per class: {name, most_in_training, visible: [1, 2, ..], missed: {mean, std}, example:
    {file, visible, found, boxes: [[x1, y1, x2, y2], ..], scores}}. missed: shares of the visible cells. boxes: pixels.
    metrics.json: 'visible_<n>/missed', the mean over classes.
    """
    content: list[dict[str, Any]] = []
    for index, result in enumerate(results):
        picture = f"example_{index}.png"
        Image.fromarray(result.example.image.permute(1, 2, 0).numpy()).save(folder / picture)
        content.append({
            "name": result.name,
            "most_in_training": result.most_in_training,
            "visible": list(range(1, len(result.detected) + 1)),
            "missed": {"mean": result.missed.mean(1).tolist(), "std": result.missed.std(1).tolist()},
            "example": {
                "file": picture,
                "visible": result.example.visible,
                "found": result.example.detected,
                "boxes": result.example.boxes.tolist(),
                "scores": result.example.scores.tolist(),
            },
        })  # fmt: skip
    (folder / "counts.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    mean = np.mean([result.missed.mean(1) for result in results], axis=0)
    metrics = {f"visible_{visible}/missed": value for visible, value in enumerate(mean.tolist(), start=1)}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    with (folder / "counts.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["class", "visible", "missed_mean", "missed_std"])
        for entry in content:
            for row in zip(entry["visible"], entry["missed"]["mean"], entry["missed"]["std"], strict=True):
                table.writerow([entry["name"], *row])


def detected_cells(scores: Tensor, labels: Tensor, boxes: Tensor, cells: Tensor, label: int, score: float, iou: float) -> Tensor:
    """Returns which cells are detected by a detection of the class `label`, bool [B, N].

    scores, labels [B, Q], boxes [B, Q, 4]: the detections. cells [N, 4]: the objects' boxes. All boxes are xyxy in the same
    pixels. A detection with at least the given score detects at most one cell, the one with the largest IoU, if that is at least
    `iou`. Several detections may detect the same cell.
    """
    overlap, nearest = box_iou(boxes.flatten(0, 1), cells).view(*scores.shape, len(cells)).max(-1)
    counts = (labels == label) & (scores >= score) & (overlap >= iou)
    detected = torch.zeros(len(scores), len(cells), dtype=torch.bool)
    image, query = counts.nonzero(as_tuple=True)
    detected[image, nearest[image, query]] = True
    return detected


def _count(
    model: Detr,
    label: int,
    crops: list[Crop],
    config: InstanceCountConfig,
    rng: np.random.Generator,
    device: torch.device,
    progress: _Progress,
) -> tuple[np.ndarray, Example]:
    cells = config.grid**2
    order = torch.from_numpy(rng.random((cells, config.repeats, cells)).argsort(-1))
    visible = order < torch.arange(1, cells + 1)[:, None, None]  # [number, repeat, cell]
    detected = np.zeros((cells, config.repeats), dtype=np.int64)
    example: Example | None = None
    size = (config.canvas, config.canvas)
    for start, crop in enumerate(crops):
        image, boxes = tiled(crop, config.grid)
        repeats = torch.arange(start, config.repeats, len(crops))
        masks = visible[:, repeats].flatten(0, 1)
        counts = []
        for part in torch.split(masks, config.batch_size):
            images = masked(image, part, config.fill)
            padding = Padding.none(len(part), size, device)
            output = model(normalise(images.to(device), padding), padding)
            detections = in_one_row(output, [size] * len(part))
            scores, labels = detections.scores.view(len(part), -1), detections.labels.view(len(part), -1)
            detection_boxes = detections.boxes.view(len(part), -1, 4)
            is_detected = detected_cells(scores, labels, detection_boxes, boxes, label, config.score, config.iou) & part
            counts.append(is_detected.sum(1))
            number = part.sum(1)
            if example is None and config.shown in number:
                i = int((number == config.shown).nonzero()[0])
                confident = (labels[i] == label) & (scores[i] >= config.score)
                example = Example(
                    images[i], detection_boxes[i, confident], scores[i, confident], config.shown, int(is_detected[i].sum())
                )
            progress.add(len(part))
        detected[:, repeats.numpy()] = torch.cat(counts).view(cells, len(repeats)).numpy()
    assert example is not None  # every number of visible cells occurs, so `shown` does too
    return detected, example


def _crops(annotations: Annotations, category_id: int, config: InstanceCountConfig) -> list[Crop]:
    label = next(i for i, category in enumerate(annotations.categories) if category.id == category_id)
    count = min(config.objects, config.repeats)
    return clear_objects(annotations, label, count, config.canvas // config.grid, config.object_size)


def _things(split: Split) -> Annotations:
    return read_annotations(split, "panoptic" if split.instances is None else "instances", masks=False)


def _largest_counts(annotations: Annotations) -> dict[int, int]:
    # Returns category id -> the largest number of its objects in one image.
    counts = [
        np.bincount(annotations.labels[first:end], minlength=len(annotations.categories))
        for first, end in zip(annotations.first[:-1], annotations.first[1:], strict=True)
    ]
    largest_counts = np.max(counts, axis=0).tolist()
    return {category.id: largest_counts[label] for label, category in enumerate(annotations.categories)}


class _Progress:
    """Reports the number of images that are done."""

    def __init__(self, reporter: Reporter, total: int) -> None:
        self.reporter, self.total, self.done, self.start = reporter, total, 0, time.perf_counter()

    def add(self, images: int) -> None:
        self.done += images
        self.reporter.progress(self.done, self.total, self.done / (time.perf_counter() - self.start), "")
