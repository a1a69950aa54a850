"""Compares decoding and training augmentation with the authors' code: `python benchmarks/loading.py PATH_OF_A_CHECKOUT`.

It measures images per second of one core, from the file to the sample, for both projects alternately on the same real COCO
images. The authors' samples are normalised floats. This project's samples are uint8, which are normalised on the model's device;
a second row includes this normalisation on the same core. The benchmark needs a checkout of facebookresearch/detr, which is not
part of this project.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torchvision
import yaml
from rich.console import Console
from rich.table import Table

from detr_core.config import build
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import AugmentationConfig, SplitConfig
from detr_core.data.splits import read_dataset, write_dataset
from detr_core.data.transforms import training_transform
from detr_core.model.common.normalisation import normalise
from detr_core.structures import Padding

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT.parent / "shared" / "data" / "coco_instances"
REQUIRED = 1.5


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the checkout")
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("DETR_LOADING_DATA", IMAGES), help="folder with images/ and instances.json"
    )
    parser.add_argument("--repeats", type=int, default=5, help="passes over all images (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("", "reference, images/s", "this project, images/s", "speed-up", "required")
    with TemporaryDirectory() as folder:
        for masks in (False, True):
            theirs, dataset = reference(arguments.checkout, arguments.data, masks), project(arguments.data, masks, Path(folder))
            count = len(dataset)
            theirs_s, ours_s, normalising_s = in_turn(theirs, dataset, count, arguments.repeats)
            name = "boxes and masks" if masks else "boxes"
            for row, seconds in ((name, ours_s), (f"{name}, normalised", ours_s + normalising_s)):
                rates = count / theirs_s, count / seconds
                table.add_row(row, *(f"{rate:.1f}" for rate in rates), f"{rates[1] / rates[0]:.2f}", f"{REQUIRED:g}")
    Console().print(table)


def reference(checkout: Path, data: Path, masks: bool) -> Callable[[int], Any]:
    """Returns a function that reads an image of the authors' dataset with its training transforms."""
    if not (checkout / "datasets" / "coco.py").is_file():
        sys.exit(f"error: {checkout}: expected a checkout of facebookresearch/detr, found no datasets/coco.py there")
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    version, torchvision.__version__ = (
        torchvision.__version__,
        "0.9.0",
    )  # the authors' code compares versions as text, so '0.29' would be older than 0.7
    from datasets.coco import CocoDetection, make_coco_transforms  # type: ignore[import-not-found]

    torchvision.__version__ = version
    random.seed(0)
    torch.manual_seed(0)
    dataset = CocoDetection(str(data / "images"), str(data / "instances.json"), make_coco_transforms("train"), masks)
    return lambda index: dataset[index]


def project(data: Path, masks: bool, folder: Path) -> CocoDataset:
    """Returns this project's dataset with the augmentation of the profile coco."""
    content = yaml.safe_load((ROOT / "params" / "coco.yaml").read_text(encoding="utf-8"))
    augmentation = build(AugmentationConfig, content["train_detection"]["augmentation"], "params/coco.yaml")
    split = SplitConfig("images", "instances.json", None, None)
    write_dataset(folder, data, split, split)
    return CocoDataset(read_dataset(folder)["train"], "instances", masks, training_transform(augmentation), 0)


def in_turn(theirs: Callable[[int], Any], dataset: CocoDataset, count: int, repeats: int) -> tuple[float, float, float]:
    """Returns median processor seconds of a pass: the authors' dataset, this project's dataset, this project's normalisation.

    The images alternate between the two, and the first pass does not count. Processor time excludes other work on the machine.
    """
    passes: list[list[float]] = []
    for epoch in range(repeats + 1):
        spent = [0.0, 0.0, 0.0]
        for index in range(count):
            times = [time.process_time()]
            theirs(index)
            times.append(time.process_time())
            image = dataset[epoch, index].image
            times.append(time.process_time())
            normalise(image[None], Padding.of(torch.zeros(1, *image.shape[1:], dtype=torch.bool)))
            times.append(time.process_time())
            spent = [total + end - begin for total, begin, end in zip(spent, times, times[1:], strict=False)]
        passes.append(spent)
    first, second, third = (median(column) for column in zip(*passes[1:], strict=True))
    return first, second, third


if __name__ == "__main__":
    main()
