"""A Python module as a process that ends when the one that started it ends, however that ends: kill -9 too.

`python -m flows.attached [--parent=PID] MODULE ARGUMENT...` is `python -m MODULE ARGUMENT...` with this guarantee. Without it,
killing a stage leaves the processes of a training at work, and killing a pipeline leaves its server. --parent is the process id
of the starter: if this process already has another parent, its starter has ended, and it ends at once.

Use `guarded` for a module that starts processes of its own, to which the guarantee does not extend.
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
PARENT = "--parent="


def attached(module: str, *arguments: str) -> list[str]:
    """The command line of that module, attached to this process, which is to start it."""
    return [sys.executable, "-m", "flows.attached", f"{PARENT}{os.getpid()}", module, *arguments]


def guarded(module: str, *arguments: str) -> list[str]:
    """The command line of that module, attached to this process with every process that the module starts; see guard.py."""
    return [sys.executable, "-m", "flows.guard", f"{PARENT}{os.getpid()}", module, *arguments]


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


def end_with_parent(parent: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    """From now on this process gets the signal when its parent ends; it ends now if its parent isn't `parent` any more.

    parent: None if it isn't known; then an earlier end of the parent is noticed only if the new parent is process 1.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
    # The parent may have ended before the call, which then concerns the new parent.
    if os.getppid() != parent and (parent is not None or os.getppid() == 1):
        os._exit(1)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(os.getppid(), number), daemon=True).start()


def parent_of_command_line() -> int | None:
    """The process id after `--parent`, which is removed from the command line; None without it."""
    if len(sys.argv) > 1 and sys.argv[1].startswith(PARENT):
        return int(sys.argv.pop(1).removeprefix(PARENT))
    return None


def _watch(parent: int, number: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), number)


def main() -> None:
    """Runs the module named on the command line."""
    end_with_parent(parent_of_command_line())
    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        if ending.code:
            raise
    work_is_done()


if __name__ == "__main__":
    main()
