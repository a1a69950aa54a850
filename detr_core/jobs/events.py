"""Defines the protocol between a process that works on a job and the process that started it.

An event is a JSON object after '@' on a line of its own on stdout; every other line belongs to the log. The first process reports
its progress, metrics and messages, and every process reports its own failure.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch

from detr_core.distributed import ProcessContext, process_group
from detr_core.errors import ExpectedError
from detr_core.gpus import GpuError, out_of_memory
from detr_core.reporter import Reporter, Silent
from detr_core.storage import as_storage_error
from detr_core.train.interruption import Interrupted

J = TypeVar("J")


class Events:
    """A Reporter that prints each event as one line, which the process that started this one reads."""

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        _print_event(kind="progress", done=done, total=total, images_per_second=images_per_second, note=note)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        _print_event(kind="metrics", step=step, values=dict(values))

    def message(self, text: str) -> None:
        _print_event(kind="message", text=text)


def main(kind: type[J], run: Callable[[J, ProcessContext, Reporter], object]) -> int:
    """Runs the job in the file that the command line names, and reports a failure in an 'error' event. kind: the job's class.

    Returns the exit code: 0 on success, 128 + the number of the signal that interrupted the job, else 1.
    """
    job = kind(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        with process_group() as process:
            return _carry_out(job, run, process)
    except GpuError as error:
        _print_error(error, str(error))
        return 1


def _carry_out(job: J, run: Callable[[J, ProcessContext, Reporter], object], process: ProcessContext) -> int:
    try:
        run(job, process, Events() if process.first else Silent())
    except Interrupted as interruption:
        _print_error(interruption, str(interruption))
        return 128 + interruption.signal
    except Exception as error:  # it is reported before this process leaves the group and the others fail for that reason
        failure = _explained(error, process)
        if isinstance(failure, ExpectedError):
            _print_error(failure, str(failure))
        else:
            traceback.print_exc()
            _print_error(failure, f"{type(failure).__name__}: {failure}", expected=False)
        return 1
    return 0


def _explained(error: Exception, process: ProcessContext) -> Exception:
    """Returns the error that says what to do, where there is one."""
    if isinstance(error, torch.OutOfMemoryError):
        return out_of_memory(error, process.rank)
    return (as_storage_error(error) if isinstance(error, OSError) else None) or error


def _print_error(error: BaseException, text: str, expected: bool = True) -> None:
    _print_event(kind="error", time=time.time(), expected=expected, text=" ".join(text.split()) or type(error).__name__)


def _print_event(**event: object) -> None:
    # Each line is one write. print() would make two, and the line of another process could come between them.
    sys.stdout.write(f"@{json.dumps(event)}\n")
    sys.stdout.flush()
