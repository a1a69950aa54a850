"""Carries out a job on this machine: writes its JOB.json, starts its rank processes by `ranks.py`, and passes their events on.

The processes of one machine find each other through a file in a private temporary folder, and listen only on the loopback
address. A single process listens on no address. With several machines (`machines.py`), each machine starts its own processes.
They find each other at the address of the first machine, whose job they all work on.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from detr_core.errors import ExpectedError
from detr_core.reporter import Reporter, Silent
from flows.profile.paths import STATE, relative
from flows.profile.sections import ResourcesConfig
from flows.runtime.child_process import command_ending_with_parent
from flows.runtime.machines import Machines
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


PATHS = ("data", "work", "out", "init", "mask_head", "checkpoint")  # the keys of a job that name files and folders
SECONDS_TO_REJOIN = 1800.0  # the time in which a lost machine must come back
SECONDS_BETWEEN_TRIES = 3.0


@dataclass(frozen=True)
class Hardware:
    """Where a job works.

    gpus: numbers among the GPUs that this process sees; None for all. side_by_side: how many such jobs share the processors.
    machines: the machines that work on the job together; None for this one alone.
    """

    gpus: tuple[int, ...] | None = None
    side_by_side: int = 1
    machines: Machines | None = None


def run(
    job: dict[str, Any],
    processes: int,
    reporter: Reporter,
    module: str | None = None,
    variant: str = "",
    hardware: Hardware = Hardware(),
) -> None:
    """Runs a job in rank processes until they end. Their events go to `reporter`, and all they print to a file in .state/log/.

    job: the content of the file that the job module reads, with `stage` and `profile`. On a machine that is not the first one
    these two only name the log, and the processes work on the job of the first machine. processes: how many of them this machine
    starts. module: the name of the job module; None for the training of the job's stage. variant: STUDY/VARIANT, if the job
    belongs to a study.

    If the connection to another machine is lost, that machine may come back within SECONDS_TO_REJOIN, and all continue from the
    last saved state. Raises RankProcessError, which names the error of the process that failed first. All processes have ended
    when this function ends. An exception such as KeyboardInterrupt asks them to save their state, which may take SECONDS_TO_SAVE.
    """
    machines = hardware.machines
    name = "-".join([job["profile"], *filter(None, variant.split("/")), job["stage"]])
    log = STATE / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, log.open("wb", buffering=0) as stream:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job if machines is None else _for_all_machines(job)))
        argument = str(file) if machines is None or machines.first else "-"
        command = command_ending_with_parent(module or f"detr_core.jobs.train_{job['stage']}", argument)
        common, lost_since = _environment(processes * hardware.side_by_side, hardware.gpus), None
        while True:
            store = str(Path(folder) / f"store-{time.monotonic_ns()}")
            environments = [common | environment_of(rank, processes, store, machines) for rank in range(processes)]
            ranks = _carry_out(Ranks([command] * processes, environments), reporter, stream)
            failed_rank = ranks.cause()
            if failed_rank is None:
                return
            if machines is None or not (failed_rank.error or {}).get("lost", False):
                break
            now = time.monotonic()
            lost_since = now if lost_since is None or failed_rank.connected else lost_since
            if now - lost_since > SECONDS_TO_REJOIN:
                break
            reporter.message(
                f"the connection to another machine was lost; waiting for all {machines.count} machines at "
                f"{machines.address}:{machines.port}"
            )
            time.sleep(SECONDS_BETWEEN_TRIES)
    reason = failure(failed_rank, processes, relative(log))
    expected = failed_rank.error is not None and failed_rank.error.get("expected", True)
    raise RankProcessError(reason if expected else f"{job['stage']} failed: {reason}")


def _for_all_machines(job: dict[str, Any]) -> dict[str, Any]:
    """Returns the job with paths that are relative to the project, which may be in another folder on another machine."""
    return job | {key: relative(Path(job[key])) for key in PATHS if job.get(key) is not None}


def _carry_out(ranks: Ranks, reporter: Reporter, stream: BinaryIO) -> Ranks:
    """Passes the events of the processes on until all have ended. An exception, such as KeyboardInterrupt, ends them in order."""
    _running.add(ranks)
    try:
        _listen(ranks, reporter, stream)
    except BaseException:
        _end_in_order(ranks, reporter, stream)
        raise
    finally:
        ranks.kill()
        _running.discard(ranks)
    return ranks


def _listen(ranks: Ranks, reporter: Reporter, stream: BinaryIO) -> None:
    """Passes the events of the processes on to `reporter`, and writes every line to `stream`, until all processes have ended."""
    for rank, line in ranks.lines():
        with suppress(OSError):  # on a full disk the log stays incomplete; the processes report a lack of space themselves
            stream.write((line if rank.number == 0 else f"[rank {rank.number}] {line}").encode())
        message = event(line)
        if message is None:
            rank.lines.append(line.strip())
        elif message["kind"] == "connected":
            rank.connected = True
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
