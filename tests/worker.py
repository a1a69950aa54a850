"""flows.worker as tests start it: in float64 where the environment has FLOAT64, killed at step KILLED_AT where it has that."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from detr_core.distributed import Group
from detr_core.reporter import Reporter
from flows import worker


@contextmanager
def float64() -> Iterator[None]:
    """All that is float32 elsewhere is float64 here: the order of a sum then shows in the fifteenth digit alone."""
    as_float = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = as_float  # type: ignore[method-assign]


class KilledAt(worker.Events):
    """Ends the process, as kill -9 does, when a step is recorded and its state isn't saved yet."""

    def __init__(self, step: int) -> None:
        self.step = step

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        super().metrics(values, step)
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def run(job: worker.Job, group: Group, reporter: Reporter) -> Any:
    """As flows.worker.run."""
    killed_at = os.environ.get("KILLED_AT")
    if group.first and killed_at is not None:
        reporter = KilledAt(int(killed_at))
    with float64() if "FLOAT64" in os.environ else nullcontext():
        return worker.run(job, group, reporter)


if __name__ == "__main__":
    sys.exit(worker.main(worker.Job, run))
