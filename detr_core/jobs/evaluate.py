"""Runs one rank process of an evaluation; flows/runtime/launch.py or torchrun starts it: `python -m detr_core.jobs.evaluate
JOB.json`.

JOB.json is an object with these fields:
- "config": the fields of EvaluateConfig;
- "checkpoint": the checkpoint's file; "dilation": whether it is a DC5 model, or null to take this from the file;
- "owner": the profile that the checkpoint must belong to, or null for any checkpoint;
- "data": the folder with dataset.json; "out": the folder of the results;
- "workers": the number of dataloader workers; "stage" and "profile": names for errors and the log.

The results in `out` are those of detr_core.evaluate.predictions.predict. detr_core/jobs/events.py describes the output on
stdout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detr_core.config import build
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import read_dataset, targets
from detr_core.data.transforms import evaluation_transform
from detr_core.distributed import ProcessContext
from detr_core.evaluate.config import EvaluateConfig
from detr_core.evaluate.inference import EvaluationData
from detr_core.evaluate.predictions import predict
from detr_core.jobs.events import main
from detr_core.model.checkpoint import load_checkpoint, load_checkpoint_of
from detr_core.reporter import Reporter


@dataclass(frozen=True)
class EvaluationJob:
    """The content of JOB.json. The docstring of this module describes its fields."""

    config: dict[str, Any]
    checkpoint: str
    dilation: bool | None
    owner: str | None
    data: str
    out: str
    workers: int
    stage: str
    profile: str


def run(job: EvaluationJob, process: ProcessContext, reporter: Reporter) -> None:
    """Runs the evaluation job in this process. Raises DatasetError or CheckpointError before work begins."""
    file, config = Path(job.checkpoint), build(EvaluateConfig, job.config, job.profile)
    if job.owner is None:
        trained = load_checkpoint(file, process.device, job.dilation)
    else:
        trained = load_checkpoint_of(file, job.owner, process.device)
    split = read_dataset(Path(job.data))["val"]
    dataset = CocoDataset(split, targets(split), masks=False, transform=evaluation_transform(config.resize), seed=0)
    with _sums_of_one_thread(process.device):
        predict(trained, EvaluationData(dataset, config.batch_size, process, job.workers, reporter), config, Path(job.out))


@contextmanager
def _sums_of_one_thread(device: torch.device) -> Iterator[None]:
    # On a CPU the number of threads that compute a sum changes its last bits; the number of processes, which share the images,
    # does not.
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    sys.exit(main(EvaluationJob, run))
