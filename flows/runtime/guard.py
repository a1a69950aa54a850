"""Runs a Python module, and then ends every process that the module started.

It does so when the module ends, when the guard is asked to end, and when the process that started the guard ends.

The command is `python -m flows.runtime.guard --parent=PID MODULE ARGUMENT...`. `mlflow ui` and a Prefect worker start processes
that would live on when `mlflow ui` or the worker is killed, and would keep a port or go on training. The guard starts the module
as a child, becomes the parent of processes that the module leaves behind, and ends all of them within SECONDS. If the guard
itself is killed, the process that started it can end the remaining processes with `end_descendants`.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
from types import FrameType

import psutil

from flows.runtime.child_process import command_ending_with_parent, end_with_parent, parent_of_command_line

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PATIENCE = (1.5, 4.5)  # the seconds that the module has to end, and then the seconds that the remaining processes have
SECONDS = sum(PATIENCE) + 0.5


class Stopped(BaseException):
    """The guard was asked to end."""


def inherit_orphans() -> None:
    """Makes this process the new parent of each of its descendants whose own parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """Returns the processes that this process has started or inherited, and all their descendants."""
    return psutil.Process().children(recursive=True)


def end_descendants(patience: float, others: list[psutil.Process] | None = None) -> None:
    """Ends all descendants and the processes in `others`: with SIGTERM, and after `patience` seconds with SIGKILL."""
    remaining = {*descendants(), *(others or [])}
    _signal(remaining, signal.SIGTERM)
    _, alive = psutil.wait_procs(remaining, timeout=patience)
    # some processes start others in the meantime
    while alive := [process for process in {*alive, *descendants()} if _is_alive(process)]:
        _signal(alive, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=1)


def main() -> None:
    """Runs the module that the command line names as a child, and exits with the exit code of the child."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    parent = parent_of_command_line()
    inherit_orphans()
    child: subprocess.Popen[bytes] | None = None
    remaining: list[psutil.Process] = []
    try:
        end_with_parent(parent, signal.SIGTERM)
        child = subprocess.Popen(command_ending_with_parent(*sys.argv[1:]))
        child.wait()
    except Stopped:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        remaining = descendants()
        if child is not None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE[0])
    finally:
        end_descendants(PATIENCE[1], remaining)
    code = child.returncode if child is not None else None
    sys.exit(143 if code is None else code if code >= 0 else 128 - code)


def _signal(processes: set[psutil.Process] | list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


if __name__ == "__main__":
    main()
