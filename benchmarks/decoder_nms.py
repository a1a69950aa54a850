"""Compares the time of the study decoder-nms with one evaluation: `python benchmarks/decoder_nms.py [PATH] [--short 800]`.

It alternates between an evaluation (one pass over the images, and the average precision of their boxes) and the study's whole
table: 4 layers x 3 NMS settings with the demo's detector on generated scenes and, with PATH, a folder of `images/` and
`instances.json`, 6 x 3 with a ResNet-50 on real images. The weights are random, which does not change the time. The table
shows CPU seconds of this process, so other processes do not count.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import ResizeConfig
from detr_core.data.splits import Split, read_dataset
from detr_core.data.transforms import evaluation_transform
from detr_core.distributed import single_process
from detr_core.evaluate.inference import EvaluationData
from detr_core.evaluate.predictions import average_precision_of
from detr_core.model.detr.model import Detr
from detr_core.reporter import Silent
from detr_core.sources.scenes import generate_scenes
from detr_core.studies.decoder_nms import decoder_nms
from detr_core.studies.evaluating.decoder_nms import CLAIMS
from detr_core.studies.study import StudyInputs
from flows.profile.settings import load

ALLOWED = 1.25
CPU = torch.device("cpu")


def main() -> None:
    """Prints the table, and exits with 1 if the study takes more than ALLOWED times as long as an evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, help="folder of images/ and instances.json")
    parser.add_argument("--short", type=int, default=800, help="short side of the real images, pixels (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="number of generated scenes (default: %(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="number of runs, of which the median is reported (default: %(default)s)"
    )
    arguments = parser.parse_args()
    table = Table("", "images", "plain evaluation, s", "all cells, s", "ratio", "allowed")
    ratios = []
    with TemporaryDirectory() as folder:
        cases = [("4 x 3, demo", "demo", scenes(Path(folder), arguments.images), None)]
        if arguments.path is not None:
            real = Split("val", arguments.path / "images", arguments.path / "instances.json", None, None)
            cases.append(("6 x 3, ResNet-50", "coco", real, ResizeConfig((arguments.short,), arguments.short * 5 // 3)))
        for name, profile, split, resize in cases:
            images, plain, study = timed(profile, split, resize, arguments.repeats)
            ratios.append(study / plain)
            table.add_row(name, str(images), f"{plain:.2f}", f"{study:.2f}", f"{study / plain:.2f}", f"{ALLOWED}")
    Console().print(table)
    if max(ratios) > ALLOWED:
        sys.exit(f"the study takes more than {ALLOWED} times as long as an evaluation")


def scenes(folder: Path, count: int) -> Split:
    """Returns the demo's val split with `count` images."""
    config = load("demo").data.scenes
    assert config is not None  # the demo's data are scenes
    generate_scenes(replace(config, train=1, val=count), 0, folder, 1, Silent())
    return read_dataset(folder)["val"]


def timed(profile: str, split: Split, resize: ResizeConfig | None, repeats: int) -> tuple[int, float, float]:
    """Returns the number of images, and the median seconds of an evaluation and of the study, after one warm-up run of each."""
    settings = load(profile)
    dataset = CocoDataset(split, "instances", masks=False, transform=evaluation_transform(resize), seed=0)
    torch.manual_seed(0)
    model = Detr(settings.detector, len(dataset.categories), mask_head=False).eval()
    batch_size = settings.evaluate.batch_size
    data = EvaluationData(dataset, batch_size, single_process(CPU), 0, Silent())
    inputs = StudyInputs(model, dataset.categories, Path("none.pt"), {"val": split}, CPU, 0, Silent())
    plain, study = [], []
    for _ in range(repeats + 1):
        plain.append(seconds(lambda: average_precision_of(model, dataset.categories, data)))
        study.append(seconds(lambda: decoder_nms(inputs, dataset, (None, 0.7, 0.5), batch_size, CLAIMS)))
    return len(dataset), median(plain[1:]), median(study[1:])


def seconds(work: Callable[[], object]) -> float:
    """Returns the CPU seconds that `work` takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
