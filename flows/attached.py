"""A Python module as a process that ends when the one that started it ends, however that ends: kill -9 too.

`python -m flows.attached MODULE ARGUMENT...` is `python -m MODULE ARGUMENT...` with that promise. Without it, killing torchrun
leaves the processes of a training at work, and killing a pipeline leaves its server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from flows.leaving import work_is_done

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def attached(module: str, *arguments: str) -> list[str]:
    """The command line of that module, attached to the process that starts it."""
    return [sys.executable, "-m", "flows.attached", module, *arguments]


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes], patience: float) -> None:
    """Asks the process to end, and after `patience` seconds makes it. Nothing to do where it has ended."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """However this ends, the process has ended then. ctrl-c in the terminal reaches it too, and it may take its time."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        raise
    finally:
        stop(process, patience=10)


def end_with_parent() -> None:
    """From now on this process is killed when its parent ends."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # It may have ended before the call, which then waits for the end of another.
        if os.getppid() != parent:
            os._exit(1)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Runs the module named on the command line."""
    end_with_parent()
    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        if ending.code:
            raise
    work_is_done()


if __name__ == "__main__":
    main()
