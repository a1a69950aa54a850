"""Measures how many padded pixels a distribution of images by shape saves: `python benchmarks/padding.py [--annotations FILE]`.

The images of each optimiser step of a training are distributed among processes at random and by shape, with the augmentation and
the order of images of the profile coco. FILE: annotations in COCO's format, such as `instances_train2017.json`, whose image sizes
are used. Without it, sizes are drawn from SIZES, an estimate of the sizes in train2017. No image is read.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table

from detr_core.config import ConfigError, build
from detr_core.data.batching import BatchPlan, training_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import AugmentationConfig
from detr_core.data.distribution import Distribution, padded_pixels
from detr_core.data.splits import DatasetError, Split
from detr_core.data.transforms import training_transform
from detr_core.distributed import ProcessContext

PARAMS = Path(__file__).resolve().parent.parent / "params" / "coco.yaml"
ALLOWED = 0.65  # padded pixels of the slowest of 8 processes, relative to the random distribution
# (h, w) -> share of the images: most of train2017 is landscape, 640 pixels wide and 480, 427 or 426 high.
SIZES = {
    (480, 640): 0.36,
    (427, 640): 0.16,
    (640, 480): 0.14,
    (426, 640): 0.07,
    (640, 427): 0.05,
    (375, 500): 0.04,
    (425, 640): 0.03,
    (333, 500): 0.03,
    (360, 640): 0.03,
    (640, 426): 0.02,
    (500, 375): 0.02,
    (640, 640): 0.02,
    (428, 640): 0.02,
    (612, 612): 0.01,
}
DIVISIONS = ((8, 1), (8, 2), (2, 1), (1, 8))  # processes, and micro-batches of each process


@dataclass(frozen=True)
class Pixels:
    """Means over steps, in millions. process: the padded pixels of the process with most. micro_batch: those of the largest
    micro-batch. all: those of all images. images: the numbers of images of all micro-batches."""

    process: float
    micro_batch: float
    all: float
    images: set[int]


def main() -> None:
    """Prints the table, and exits with 1 if the distribution by shape saves less than it should, or changes a step's images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--annotations", type=Path, help="annotations in COCO's format (default: generated sizes)")
    parser.add_argument("--steps", type=int, default=100, help="number of optimiser steps (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error("--steps: expected 1 or more")
    content = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))["train_detection"]
    images = arguments.steps * content["batch_size"]
    with TemporaryDirectory() as folder:
        try:
            dataset = dataset_of(arguments.annotations or generated(Path(folder), images), content)
        except (DatasetError, ConfigError) as error:
            sys.exit(str(error))
    steps = min(arguments.steps, len(dataset) // content["batch_size"])
    if steps == 0:
        sys.exit(f"expected at least {content['batch_size']} images, one step of the profile coco, found {len(dataset)}")
    table = Table(
        "processes x micro-batches", "distribution", "slowest process, million pixels", "largest micro-batch", "all images",
        "padding", "images of a micro-batch", "relative, slowest process", "relative, largest micro-batch",
    )  # fmt: skip
    slowest = {}
    for processes, accumulation in DIVISIONS:
        pixels: dict[Distribution, Pixels] = {}
        contents = []
        distributions: tuple[Distribution, Distribution] = ("random", "by_shape")
        for distribution in distributions:
            plan = BatchPlan(content["batch_size"], accumulation, content["seed"], distribution)
            parts = [micro_batches(dataset, plan, rank, processes, steps) for rank in range(processes)]
            contents.append([sorted(chain.from_iterable(chain.from_iterable(step))) for step in zip(*parts, strict=True)])
            pixels[distribution] = measured(dataset, parts)
        if contents[0] != contents[1]:
            sys.exit("the two distributions do not have the same images in every step")
        real = sum(h * w for h, w in map(dataset.input_size, chain.from_iterable(contents[0]))) / steps / 1e6
        for distribution, values in pixels.items():
            relative = values.process / pixels["random"].process, values.micro_batch / pixels["random"].micro_batch
            slowest[processes, accumulation] = relative[0]
            table.add_row(
                f"{processes} x {accumulation}", distribution, f"{values.process:.2f}", f"{values.micro_batch:.2f}",
                f"{values.all:.1f}", f"{1 - real / values.all:.0%}", f"{min(values.images)} to {max(values.images)}",
                f"{relative[0]:.3f}", f"{relative[1]:.3f}",
            )  # fmt: skip
    console = Console(width=150)
    console.print(f"{steps} steps of {content['batch_size']} images, sizes of {arguments.annotations or 'the estimate'}")
    console.print(table)
    console.print(f"one step is distributed in {seconds_of_a_step(dataset, content) * 1e3:.1f} ms")
    if slowest[8, 1] > ALLOWED:
        sys.exit(f"the slowest of 8 processes has {slowest[8, 1]:.3f} of the padded pixels, more than {ALLOWED:g}")


def generated(folder: Path, images: int) -> Path:
    """Returns an annotation file with so many images, whose sizes are drawn from SIZES with a fixed seed."""
    shares = np.array(list(SIZES.values()))
    drawn = np.random.default_rng(0).choice(len(SIZES), images, p=shares / shares.sum()).tolist()
    sizes = [list(SIZES)[number] for number in drawn]
    entries = [{"id": i, "file_name": f"{i}.jpg", "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": entries, "annotations": [], "categories": [{"id": 1, "name": "object"}]}))
    return file


def dataset_of(file: Path, content: dict[str, object]) -> CocoDataset:
    """Returns the dataset of an annotation file, with the augmentation of the profile coco."""
    augmentation = build(AugmentationConfig, content["augmentation"], PARAMS.name)
    split = Split("train", file.parent, file, None, None)
    return CocoDataset(split, "instances", False, training_transform(augmentation), int(str(content["seed"])))


def micro_batches(
    dataset: CocoDataset, plan: BatchPlan, rank: int, processes: int, steps: int
) -> list[list[list[tuple[int, int]]]]:
    """Returns the keys of the images of each micro-batch of one process, for each of the first steps of the first epoch."""
    process = ProcessContext(rank, processes, torch.device("cpu"))
    sampler = iter(training_batches(dataset, plan, 0, 0, process, 0).batch_sampler)  # type: ignore[arg-type]
    return [[next(sampler) for _ in range(plan.accumulation)] for _ in range(steps)]  # type: ignore[misc]


def measured(dataset: CocoDataset, parts: list[list[list[list[tuple[int, int]]]]]) -> Pixels:
    """Returns the padded pixels of the steps. parts: the micro-batches of each step of each process."""
    pixels = np.array([[[cost(dataset, keys) for keys in step] for step in process] for process in parts]) / 1e6
    images = {len(keys) for process in parts for step in process for keys in step}
    of_processes = pixels.sum(2)
    return Pixels(of_processes.max(0).mean(), pixels.max((0, 2)).mean(), of_processes.sum(0).mean(), images)


def cost(dataset: CocoDataset, keys: list[tuple[int, int]]) -> int:
    """Returns the pixels of the batch of the images with these keys, with its padding."""
    return padded_pixels([dataset.input_size(key) for key in keys], range(len(keys)))


def seconds_of_a_step(dataset: CocoDataset, content: dict[str, object]) -> float:
    """Returns how long a process computes to distribute the images of one step among 8 processes by shape."""
    plan = BatchPlan(int(str(content["batch_size"])), 1, 0, "by_shape")
    steps = min(20, len(dataset) // plan.batch_size)
    times = []
    for _ in range(5):
        began = time.process_time()
        micro_batches(dataset, plan, 0, 8, steps)
        times.append((time.process_time() - began) / steps)
    return min(times)


if __name__ == "__main__":
    main()
