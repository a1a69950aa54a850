"""Ends a process that dvc or a Prefect worker has started when dvc or the worker ends, for whatever reason.

The process then sends itself SIGTERM: it saves its state, marks its run and exits. If it is still there after GRACE seconds, it
is killed. Call these functions before the imports that take seconds, so that an end of dvc during the imports is noticed too.
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


def end_with_dvc() -> None:
    """Ends this process, a stage that dvc has started, when dvc ends or has ended already."""
    if os.environ.setdefault(STAGE, str(os.getpid())) != str(os.getpid()):
        return  # this process was started by the stage, which ends it
    dvc = _starter()
    if dvc is None:
        print("error: the dvc that started this stage has ended; run the command again", file=sys.stderr)
        os._exit(1)
    _end_with(dvc)


def end_with_worker() -> None:
    """Ends this process, in which a Prefect worker runs a flow, when that worker ends or has ended already."""
    import psutil

    parent = os.getppid()
    try:
        if not _may_have_started_this(psutil.Process(parent).cmdline(), "prefect"):
            os._exit(1)
    except psutil.Error:
        os._exit(1)
    _end_with(parent)


def _starter() -> int | None:
    """Returns the process id of the dvc that started this stage, perhaps through a shell; None if that dvc has ended.

    It looks at the nearest ancestor that is not part of the stage. If dvc has ended, this is another process, such as init.
    """
    import psutil

    process: psutil.Process | None = psutil.Process()
    try:
        while process is not None and "DVC_STAGE" in process.environ():
            process = process.parent()
        return process.pid if process is not None and _may_have_started_this(process.cmdline(), "dvc") else None
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def _may_have_started_this(command: list[str], program: str) -> bool:
    """Returns whether a command line is that of `program`, or of a Python program that may use it as a library.

    The result is False for init and for this project's own modules, because orphaned processes get them as a new parent.
    """
    if any(Path(word).name == program or f"/{program}/" in word for word in command):
        return True
    return bool(command) and Path(command[0]).name.startswith("python") and not any(w.startswith("flows.") for w in command)


def _end_with(pid: int) -> None:
    ended = _end_of(pid)
    if ended is None:
        os._exit(1)
    threading.Thread(target=_wait_and_end, args=(ended, pid), daemon=True).start()


def _end_of(pid: int) -> int | None:
    """Returns a file descriptor that shows the end of the process; -1 without such descriptors; None if it has ended."""
    try:
        os.kill(pid, 0)
        return os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    except PermissionError:
        return -1
    except ProcessLookupError:
        return None
    except OSError:  # a kernel without pidfd_open
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
    # The signal of this timer ends the process even if the main thread keeps this thread from running.
    signal.setitimer(signal.ITIMER_REAL, GRACE)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
