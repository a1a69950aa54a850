"""A process that was started by dvc, or by a Prefect worker, ends in order when that one ends, however it ends.

It gets SIGTERM then, as from whoever stops it in order: it saves its state, marks its run and goes. After GRACE seconds it is
killed. To be called before the imports that take seconds: what dies during these is noticed too.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from pathlib import Path

GRACE = 5.0
STAGE = "DETR_STAGE_PID"  # set by the process that is a stage, for the processes that it starts


def follow_dvc() -> None:
    """In a stage that dvc has started: end with dvc, of which a shell may be in between. Ends now where dvc has ended already."""
    if os.environ.setdefault(STAGE, str(os.getpid())) != str(os.getpid()):
        return  # a process of the stage, which sees to it
    dvc = _starter()
    if dvc is None:
        print("error: dvc, which has started this stage, has ended", file=sys.stderr)
        os._exit(1)
    _follow(dvc)


def follow_worker() -> None:
    """In a process in which a Prefect worker runs a flow: end with that worker."""
    import psutil

    parent = os.getppid()
    try:
        if not _may_have_started_us(psutil.Process(parent).cmdline(), "prefect"):
            os._exit(1)
    except psutil.Error:
        os._exit(1)
    _follow(parent)


def _starter() -> int | None:
    """The dvc that runs us: the nearest ancestor that isn't of the stage. None where another process has inherited us from it."""
    import psutil

    process: psutil.Process | None = psutil.Process()
    try:
        while process is not None and "DVC_STAGE" in process.environ():
            process = process.parent()
        return process.pid if process is not None and _may_have_started_us(process.cmdline(), "dvc") else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _may_have_started_us(command: list[str], program: str) -> bool:
    """Whether this is the program, or a Python one that uses it as a library: not init, nor one of ours that inherits."""
    if any(Path(word).name == program or f"/{program}/" in word for word in command):
        return True
    return bool(command) and Path(command[0]).name.startswith("python") and not any(w.startswith("flows.") for w in command)


def _follow(pid: int) -> None:
    ended = _end_of(pid)
    if ended is None:
        os._exit(1)
    threading.Thread(target=_wait_and_end, args=(ended, pid), daemon=True).start()


def _end_of(pid: int) -> int | None:
    """Something to wait with for the end of this process: its file descriptor on Linux, else -1; None where it has ended."""
    try:
        os.kill(pid, 0)
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    except PermissionError:
        return -1
    except ProcessLookupError:
        return None
    except OSError:  # a kernel without it
        return -1


def _wait_and_end(descriptor: int, pid: int) -> None:
    if descriptor >= 0:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
    else:
        parent = os.getppid()
        while os.getppid() == parent and _end_of(pid) is not None:
            time.sleep(0.5)
    signal.setitimer(signal.ITIMER_REAL, GRACE)  # whose signal ends us even while the main thread lets no other run
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
