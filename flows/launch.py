"""A training or an evaluation in processes of its own, by torchrun: started, listened to, and ended with us."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections import deque
from pathlib import Path
from typing import Any

from detr_core.errors import ExpectedError
from detr_core.reporter import Reporter
from flows.attached import attached, stop
from flows.paths import ROOT, STATE, relative
from flows.settings import ResourcesConfig

WORKER = "flows.worker"
HOST = "127.0.0.1"


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


_running: set[subprocess.Popen[str]] = set()


def stop_all() -> None:
    """Ends the workers that other threads of this process wait for; there they fail."""
    for process in list(_running):
        process.terminate()


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
    variant: whose work it is, where it is a study's. side_by_side: how many such share the processors. Raises WorkerError.
    However this ends, its processes have ended then.
    """
    name = "-".join([job["profile"], *filter(None, variant.split("/")), job["stage"]])
    log = STATE / "log" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, log.open("w") as stream:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job))
        process = subprocess.Popen(
            _torchrun(processes, worker, file),
            cwd=ROOT,
            env=_environment(processes * side_by_side, gpus),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # ctrl-c reaches us alone, and we end torchrun, which ends its processes
        )
        assert process.stdout is not None
        _running.add(process)
        error, last = "", deque[str](maxlen=200)
        try:
            for line in process.stdout:
                stream.write(line)
                stream.flush()
                event = _event(line)
                if event is None:
                    last.append(line.strip())
                elif event["kind"] == "error":
                    error = error or event["text"]  # what follows from it is said later
                else:
                    _tell(event, reporter)
            code = process.wait()
        finally:
            stop(process, patience=10)
            _running.discard(process)
            process.stdout.close()
    if error:
        raise WorkerError(error)
    if code != 0:
        raise WorkerError(f"{job['stage']} ended with {_ending(code)}: {_reason(list(last))}; its log is {relative(log)}")


def _torchrun(processes: int, worker: str, job: Path) -> list[str]:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    # An address and static rendezvous: torchrun's --standalone looks up this machine's name, which not every machine can.
    where = ["--nnodes=1", "--rdzv-backend=static", f"--master-addr={HOST}", f"--master-port={port}", f"--local-addr={HOST}"]
    logs = f"--log-dir={job.parent}"  # or it leaves a folder of each run in the system's temporary one
    arguments = [f"--nproc-per-node={processes}", *where, logs, "--max-restarts=0", "-m", "flows.attached", worker, str(job)]
    return attached("torch.distributed.run", *arguments)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment(processes: int, gpus: tuple[int, ...] | None) -> dict[str, str]:
    defaults = {
        "OMP_NUM_THREADS": str(threads(processes)),  # torchrun would give each process one
        "GLOO_SOCKET_IFNAME": "lo0" if os.uname().sysname == "Darwin" else "lo",
        "PYTHONUNBUFFERED": "1",
    }
    return defaults | os.environ | _visible(gpus)


def _visible(gpus: tuple[int, ...] | None) -> dict[str, str]:
    """The environment in which a process sees only these of our GPUs."""
    if gpus is None:
        return {}
    ours = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = ours if ours != [""] else [str(gpu) for gpu in range(max(gpus) + 1)]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[gpu] for gpu in gpus)}


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith("@{"):
        return None
    try:
        event = json.loads(line[1:])
    except ValueError:
        return None
    return event if isinstance(event, dict) and "kind" in event else None


def _tell(event: dict[str, Any], reporter: Reporter) -> None:
    if event["kind"] == "progress":
        reporter.progress(event["done"], event["total"], event["images_per_second"], event["note"])
    elif event["kind"] == "metrics":
        reporter.metrics(event["values"], event["step"])
    elif event["kind"] == "message":
        reporter.message(event["text"])


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _reason(lines: list[str]) -> str:
    """The line that says most: the first Python error, else what torchrun says of the process, else the last line."""
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line) and "ChildFailedError" not in line]
    ended = [line.removeprefix("traceback :").strip() for line in lines if line.startswith("traceback : Signal")]
    return next(iter(errors + ended + [line for line in reversed(lines) if line]), "it printed nothing")
