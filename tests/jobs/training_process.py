"""Runs the training jobs for tests: in float64 if the variable FLOAT64 is set, with a signal at the step in SIGNAL_AT, and with
batches that are all padded to the same square if CANVAS says its side."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch.nn import functional as F

from detr_core.data.batching import collate
from detr_core.distributed import ProcessContext
from detr_core.jobs import train_detection, train_panoptic, training
from detr_core.jobs.events import Events, main
from detr_core.reporter import Reporter
from detr_core.structures import Batch, Padding
from detr_core.train.state import Progress

CANVAS = "CANVAS"


@contextmanager
def float64() -> Iterator[None]:
    """Makes everything float64 that is float32 elsewhere, so that the order of a sum changes only the fifteenth digit."""
    as_float = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = as_float  # type: ignore[method-assign]


def on_canvas(batch: Batch, side: int) -> Batch:
    """Returns a batch padded further, to side x side pixels, so that the padding of an image doesn't depend on the others."""
    height, width = batch.images.shape[-2:]
    beyond = (0, side - width, 0, side - height)
    padding = Padding(F.pad(batch.padding.mask, beyond, value=True), batch.padding.sizes)
    return Batch(F.pad(batch.images, beyond), padding, batch.targets)


@contextmanager
def canvas(side: int) -> Iterator[None]:
    """Pads all batches to side x side pixels."""
    with mock.patch("detr_core.data.batching.collate", lambda samples: on_canvas(collate(samples), side)):
        yield


class SignalAt(Events):
    """Sends this process a signal when a step is recorded whose state is not saved yet."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        super().metrics(values, step)
        if step == self.step:
            os.kill(os.getpid(), self.number)


def carry_out(job: training.TrainingJob, process: ProcessContext, reporter: Reporter) -> Progress:
    """Runs a training of either stage in this process."""
    return (train_detection if job.stage == "detection" else train_panoptic).run(job, process, reporter)


def run(job: training.TrainingJob, process: ProcessContext, reporter: Reporter) -> Any:
    """Runs a training as `carry_out` does. SIGNAL_AT: `NUMBER:STEP`, the signal for the first process, and its step."""
    if process.first and "SIGNAL_AT" in os.environ:
        number, step = os.environ["SIGNAL_AT"].split(":")
        reporter = SignalAt(int(number), int(step))
    padded = canvas(int(os.environ[CANVAS])) if CANVAS in os.environ else nullcontext()
    with float64() if "FLOAT64" in os.environ else nullcontext(), padded:
        return carry_out(job, process, reporter)


if __name__ == "__main__":
    sys.exit(main(training.TrainingJob, run))
