"""Runs the training jobs for tests: in float64 if the variable FLOAT64 is set, and with a signal at the step in SIGNAL_AT."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from detr_core.distributed import ProcessContext
from detr_core.jobs import train_detection, train_panoptic, training
from detr_core.jobs.events import Events, main
from detr_core.reporter import Reporter
from detr_core.train.state import Progress


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
    with float64() if "FLOAT64" in os.environ else nullcontext():
        return carry_out(job, process, reporter)


if __name__ == "__main__":
    sys.exit(main(training.TrainingJob, run))
