"""A training or an evaluation in processes of its own on this machine: started, listened to, and ended with this one.

The processes meet through a file in a private temporary folder, so that none of them listens on any address but the loopback
one. A single process meets nobody and listens on nothing. On several machines torchrun starts the same workers.
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
from flows.attached import attached
from flows.paths import STATE, relative
from flows.ranks import Ranks, environment_of, event, failure
from flows.settings import ResourcesConfig

WORKER = "flows.worker"
SECONDS_TO_SAVE = 120.0  # that processes have to finish a step in and to save their state, before they are ended by force


class WorkerError(ExpectedError, RuntimeError):
    """A process of a stage that failed, in one line: what it said, or how it ended, and where its log is."""


def process_count(resources: ResourcesConfig) -> int:
    """How many processes a training or an evaluation takes: as the profile says; for 'auto' one a GPU, and one without."""
    return max(1, len(gpus(resources))) if resources.processes == "auto" else int(resources.processes)


def gpus(resources: ResourcesConfig) -> tuple[int, ...]:
    """The GPUs that a profile's work is to take, by number among those that this process sees; none where there are none."""
    if resources.gpus is not None:
        return resources.gpus
    if shutil.which("nvidia-smi") is None and not Path("/dev/nvidiactl").exists():
        return ()  # torch knows no better, and takes seconds to import
    import torch

    return tuple(range(torch.cuda.device_count()))


def threads(processes: int) -> int:
    """How many threads each of so many processes computes with, unless OMP_NUM_THREADS says otherwise."""
    return max(1, cores() // processes)


_running: set[Ranks] = set()


def stop_all() -> None:
    """Ends the workers that other threads of this process wait for; there they fail."""
    for ranks in list(_running):
        ranks.stop(SECONDS_TO_SAVE)


def run(
    job: dict[str, Any],
    processes: int,
    reporter: Reporter,
    worker: str = WORKER,
    gpus: tuple[int, ...] | None = None,
    variant: str = "",
    side_by_side: int = 1,
) -> None:
    """Runs a worker to its end; its events go to `reporter`, all it prints into .state/log/.

    job: as the module `worker` describes it, with `stage` and `profile`. gpus: of those that this process sees, None for all.
    variant: whose work it is, where it is a study's. side_by_side: how many such share the processors.
    Raises WorkerError, which tells of the process that failed first. However this ends, its processes have ended then: an
    exception that ends it early, such as KeyboardInterrupt, asks them to save their state, for which they have SECONDS_TO_SAVE.
    """
    name = "-".join([job["profile"], *filter(None, variant.split("/")), job["stage"]])
    log = STATE / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, log.open("wb", buffering=0) as stream:
        file, store = Path(folder) / "job.json", str(Path(folder) / "store")
        file.write_text(json.dumps(job))
        common = _environment(processes * side_by_side, gpus)
        environments = [common | environment_of(rank, processes, store) for rank in range(processes)]
        ranks = Ranks([attached(worker, str(file))] * processes, environments)
        _running.add(ranks)
        try:
            _listen(ranks, reporter, stream)
        except BaseException:
            _end_in_order(ranks, reporter, stream)
            raise
        finally:
            ranks.kill()
            _running.discard(ranks)
    failed = ranks.cause()
    if failed is not None:
        said = failure(failed, processes, relative(log))
        foreseen = failed.error is not None and failed.error.get("expected", True)
        raise WorkerError(said if foreseen else f"{job['stage']} failed: {said}")


def _listen(ranks: Ranks, reporter: Reporter, stream: BinaryIO) -> None:
    """Passes the events of the processes on to `reporter` until all have ended, and every line into `stream`."""
    for rank, line in ranks.lines():
        with suppress(OSError):  # a full disk, which the processes notice too where it matters
            stream.write((line if rank.number == 0 else f"[rank {rank.number}] {line}").encode())
        found = event(line)
        if found is None:
            rank.lines.append(line.strip())
        elif found["kind"] == "error":
            rank.error = rank.error or found  # what follows from it is said later
        else:
            _tell(found, reporter)


def _end_in_order(ranks: Ranks, reporter: Reporter, stream: BinaryIO) -> None:
    """Ends processes whose work isn't wanted any more; tells how far they came."""
    began = time.monotonic()
    ranks.stop(SECONDS_TO_SAVE)
    with suppress(ExpectedError):  # of a reporter that ends the work it listens to
        reporter.message(
            "waiting for the processes of the training or evaluation to end; interrupt the command again to end them at once"
        )
    _listen(ranks, Silent(), stream)
    cause = ranks.cause()
    with suppress(ExpectedError):
        if cause is not None and cause.error is not None:
            reporter.message(str(cause.error["text"]))
        elif time.monotonic() - began >= SECONDS_TO_SAVE:
            reporter.message(
                f"the processes were ended by force after {SECONDS_TO_SAVE:.0f} s; the steps since the last saved state are lost"
            )


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(processes: int, gpus: tuple[int, ...] | None) -> dict[str, str]:
    defaults = {"OMP_NUM_THREADS": str(threads(processes)), "PYTHONUNBUFFERED": "1"}
    return defaults | os.environ | _visible(gpus)


def _visible(gpus: tuple[int, ...] | None) -> dict[str, str]:
    """The environment in which a process sees only these of our GPUs."""
    if gpus is None:
        return {}
    ours = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = ours if ours != [""] else [str(gpu) for gpu in range(max(gpus) + 1)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[gpu] for gpu in gpus)}


def _tell(event: dict[str, Any], reporter: Reporter) -> None:
    if event["kind"] == "progress":
        reporter.progress(event["done"], event["total"], event["images_per_second"], event["note"])
    elif event["kind"] == "metrics":
        reporter.metrics(event["values"], event["step"])
    elif event["kind"] == "message":
        reporter.message(event["text"])
