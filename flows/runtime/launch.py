"""Carries out a job on this machine: writes its JOB.json, starts its rank processes by `ranks.py`, and passes their events on.

The processes find each other through a file in a private temporary folder, and listen only on the loopback address. A single
process listens on no address. On several machines torchrun starts the same modules.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from detr_core.errors import ExpectedError
from detr_core.reporter import Reporter, Silent
from flows.profile.paths import STATE, relative
from flows.profile.sections import ResourcesConfig
from flows.runtime.child_process import command_ending_with_parent
from flows.runtime.ranks import Ranks, environment_of, event, failure

MOST_WORKERS = 16  # dataloader workers of a rank process if their number is 'auto'
SECONDS_TO_SAVE = 120.0  # the time in which processes must finish their step and save their state; then they are killed


class RankProcessError(ExpectedError, RuntimeError):
    """A rank process failed. The message is one line: the error that it reported, or how it ended and where its log is."""


def process_count(resources: ResourcesConfig) -> int:
    """Returns the profile's number of processes; for 'auto' this is one for each GPU, or one if there is no GPU."""
    return max(1, len(gpus(resources))) if resources.processes == "auto" else int(resources.processes)


def gpus(resources: ResourcesConfig) -> tuple[int, ...]:
    """Returns the GPUs that the profile names, or all GPUs, as numbers among the GPUs that this process sees."""
    if resources.gpus is not None:
        return resources.gpus
    devices = (Path("/dev/nvidiactl"), Path("/dev/kfd"))  # of NVIDIA and of AMD
    if shutil.which("nvidia-smi") is None and not any(device.exists() for device in devices):
        return ()  # torch, which takes seconds to import, would find no GPU either
    import torch

    return tuple(range(torch.cuda.device_count()))


def threads(processes: int) -> int:
    """Returns how many threads each of this many processes uses, unless OMP_NUM_THREADS is set."""
    return max(1, cores() // processes)


def worker_count(resources: ResourcesConfig, processes: int) -> int:
    """Returns how many dataloader workers each of this many processes on this machine has.

    For 'auto' this is one on each core that a process has beside its own, at least 1 and at most 16; more do not load faster.
    """
    if resources.workers == "auto":
        return min(MOST_WORKERS, max(1, threads(processes) - 1))
    return int(resources.workers)


_running: set[Ranks] = set()


def stop_all() -> None:
    """Ends the rank processes that other threads of this process wait for; in those threads, `run` then fails."""
    for ranks in list(_running):
        ranks.stop(SECONDS_TO_SAVE)


def run(
    job: dict[str, Any],
    processes: int,
    reporter: Reporter,
    module: str | None = None,
    gpus: tuple[int, ...] | None = None,
    variant: str = "",
    side_by_side: int = 1,
) -> None:
    """Runs a job in rank processes until they end. Their events go to `reporter`, and all they print to a file in .state/log/.

    job: the content of the file that the job module reads, with `stage` and `profile`. module: the name of the job module; None
    for the training of the job's stage. gpus: numbers among the GPUs that this process sees; None for all. variant:
    STUDY/VARIANT, if the job belongs to a study. side_by_side: how many such jobs share the processors. Raises RankProcessError,
    which names the error of the process that failed first. All processes have ended when this function ends. An exception such
    as KeyboardInterrupt asks them to save their state, which may take SECONDS_TO_SAVE.
    """
    name = "-".join([job["profile"], *filter(None, variant.split("/")), job["stage"]])
    log = STATE / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, log.open("wb", buffering=0) as stream:
        file, store = Path(folder) / "job.json", str(Path(folder) / "store")
        file.write_text(json.dumps(job))
        common = _environment(processes * side_by_side, gpus)
        environments = [common | environment_of(rank, processes, store) for rank in range(processes)]
        ranks = Ranks(
            [command_ending_with_parent(module or f"detr_core.jobs.train_{job['stage']}", str(file))] * processes, environments
        )
        _running.add(ranks)
        try:
            _listen(ranks, reporter, stream)
        except BaseException:
            _end_in_order(ranks, reporter, stream)
            raise
        finally:
            ranks.kill()
            _running.discard(ranks)
    failed_rank = ranks.cause()
    if failed_rank is not None:
        reason = failure(failed_rank, processes, relative(log))
        expected = failed_rank.error is not None and failed_rank.error.get("expected", True)
        raise RankProcessError(reason if expected else f"{job['stage']} failed: {reason}")


def _listen(ranks: Ranks, reporter: Reporter, stream: BinaryIO) -> None:
    """Passes the events of the processes on to `reporter`, and writes every line to `stream`, until all processes have ended."""
    for rank, line in ranks.lines():
        with suppress(OSError):  # on a full disk the log stays incomplete; the processes report a lack of space themselves
            stream.write((line if rank.number == 0 else f"[rank {rank.number}] {line}").encode())
        message = event(line)
        if message is None:
            rank.lines.append(line.strip())
        elif message["kind"] == "error":
            rank.error = rank.error or message  # later errors of the same process follow from its first error
        else:
            _pass_on(message, reporter)


def _end_in_order(ranks: Ranks, reporter: Reporter, stream: BinaryIO) -> None:
    """Ends the processes of an interrupted job in order, and reports whether they saved their state."""
    start = time.monotonic()
    ranks.stop(SECONDS_TO_SAVE)
    with suppress(ExpectedError):  # the reporter may raise the error with which it ends the job
        reporter.message(
            "waiting for the processes of the training or evaluation to end; interrupt the command again to end them at once"
        )
    _listen(ranks, Silent(), stream)
    cause = ranks.cause()
    with suppress(ExpectedError):
        if cause is not None and cause.error is not None:
            reporter.message(str(cause.error["text"]))
        elif time.monotonic() - start >= SECONDS_TO_SAVE:
            reporter.message(
                f"the processes were ended by force after {SECONDS_TO_SAVE:.0f} s; the steps since the last saved state are lost"
            )


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(processes: int, gpus: tuple[int, ...] | None) -> dict[str, str]:
    defaults = {"OMP_NUM_THREADS": str(threads(processes)), "PYTHONUNBUFFERED": "1"}
    return defaults | os.environ | _visible(gpus)


def _visible(gpus: tuple[int, ...] | None) -> dict[str, str]:
    """Returns the environment variable that restricts a process to these of the GPUs that this process sees."""
    if gpus is None:
        return {}
    visible_names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible_names if visible_names != [""] else [str(gpu) for gpu in range(max(gpus) + 1)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[gpu] for gpu in gpus)}


def _pass_on(event: dict[str, Any], reporter: Reporter) -> None:
    if event["kind"] == "progress":
        reporter.progress(event["done"], event["total"], event["images_per_second"], event["note"])
    elif event["kind"] == "metrics":
        reporter.metrics(event["values"], event["step"])
    elif event["kind"] == "message":
        reporter.message(event["text"])
