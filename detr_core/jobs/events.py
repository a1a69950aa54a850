"""Defines the protocol between a process that works on a job and the process that started it.

An event is a JSON object after '@' on a line of its own on stdout; every other line belongs to the log. The first process reports
its progress, metrics and messages, and every process reports its own failure.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed as dist

from detr_core.distributed import ProcessContext, process_group
from detr_core.errors import ExpectedError
from detr_core.gpus import GpuError, out_of_memory
from detr_core.reporter import Reporter, Silent
from detr_core.storage import as_storage_error
from detr_core.train.interruption import Interrupted

J = TypeVar("J")
_CONNECTION_ERROR = re.compile(r"gloo|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe")


class Events:
    """A Reporter that prints each event as one line, which the process that started this one reads."""

    def progress(self, done: int, total: int, images_per_second: float, note: str) -> None:
        _print_event(kind="progress", done=done, total=total, images_per_second=images_per_second, note=note)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        _print_event(kind="metrics", step=step, values=dict(values))

    def message(self, text: str) -> None:
        _print_event(kind="message", text=text)


class MissingJobError(ExpectedError, ValueError):
    """The first process was started without a job."""


def main(kind: type[J], run: Callable[[J, ProcessContext, Reporter], object]) -> int:
    """Runs the job in the file that the command line names, and reports a failure in an 'error' event. kind: the job's class.

    All processes work on the job of the first process; the others may have `-` in place of a file, as on further machines.
    Returns the exit code: 0 on success, 128 + the number of the signal that interrupted the job, else 1.
    """
    content = None if sys.argv[1] == "-" else json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        with process_group() as process:
            return _carry_out(kind, content, run, process)
    except (GpuError, dist.DistError) as error:
        _print_error(error, str(error), lost=isinstance(error, dist.DistError))
        return 1


def _carry_out(
    kind: type[J], content: dict[str, Any] | None, run: Callable[[J, ProcessContext, Reporter], object], process: ProcessContext
) -> int:
    _print_event(kind="connected")
    try:
        content = process.from_first(content)
        if content is None:
            raise MissingJobError("expected the file of a job for the first process, found '-'; give it JOB.json")
        run(kind(**content), process, Events() if process.first else Silent())
    except Interrupted as interruption:
        _print_error(interruption, str(interruption))
        return 128 + interruption.signal
    except Exception as error:  # it is reported before this process leaves the group and the others fail for that reason
        failure = _explained(error, process)
        if isinstance(failure, ExpectedError):
            _print_error(failure, str(failure))
        else:
            traceback.print_exc()
            _print_error(failure, f"{type(failure).__name__}: {failure}", expected=False, lost=_is_lost_connection(failure))
        return 1
    return 0


def _is_lost_connection(error: Exception) -> bool:
    """Returns whether the error says that another process of the group is gone. gloo raises plain RuntimeErrors."""
    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and _CONNECTION_ERROR.search(str(error)) is not None


def _explained(error: Exception, process: ProcessContext) -> Exception:
    """Returns the error that says what to do, where there is one."""
    if isinstance(error, torch.OutOfMemoryError):
        return out_of_memory(error, process.rank)
    return (as_storage_error(error) if isinstance(error, OSError) else None) or error


def _print_error(error: BaseException, text: str, expected: bool = True, lost: bool = False) -> None:
    # lost: whether this process only lost the connection to another one, which is the cause
    line = " ".join(text.split()) or type(error).__name__
    _print_event(kind="error", time=time.time(), expected=expected, lost=lost, text=line)


def _print_event(**event: object) -> None:
    # Each line is one write. print() would make two, and the line of another process could come between them.
    sys.stdout.write(f"@{json.dumps(event)}\n")
    sys.stdout.flush()
