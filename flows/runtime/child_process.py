"""Runs a Python module in a process that ends when its parent process ends, even if the parent is killed by SIGKILL.

`python -m flows.runtime.child_process [--parent=PID] MODULE ARGUMENT...` is `python -m MODULE ARGUMENT...` with this guarantee.
Without it, a killed stage would leave the processes of a training running, and a killed supervisor would leave the Prefect
server running. --parent is the process id of the parent. If this process already has another parent, its parent has ended, and
it ends at once.

The guarantee does not extend to processes that the module itself starts: use `guarded` for such a module.
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

from flows.runtime.fast_exit import work_is_done

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = "--parent="


def command_ending_with_parent(module: str, *arguments: str) -> list[str]:
    """Returns a command line that runs the module in a process that ends with this one; this process must start it."""
    return [sys.executable, "-m", "flows.runtime.child_process", f"{PARENT}{os.getpid()}", module, *arguments]


def guarded(module: str, *arguments: str) -> list[str]:
    """Returns such a command line for a module that starts processes itself; these processes end too; see guard.py."""
    return [sys.executable, "-m", "flows.runtime.guard", f"{PARENT}{os.getpid()}", module, *arguments]


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes], patience: float) -> None:
    """Asks the process to end, and kills it after `patience` seconds. Does nothing if the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ends the process when the block ends. After ctrl-c, which the process receives too, it first has 20 seconds to end."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        raise
    finally:
        stop(process, patience=10)


def end_with_parent(parent: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    """Makes the system send this process the signal when its parent ends, and ends it now if `parent` is no longer its parent.

    parent: None if it isn't known; then an earlier end of the parent is noticed only if the new parent is process 1.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
    # If the parent ended before the call above, the kernel now watches the new parent.
    if os.getppid() != parent and (parent is not None or os.getppid() == 1):
        os._exit(1)
    if sys.platform != "linux":
        threading.Thread(target=_watch, args=(os.getppid(), number), daemon=True).start()


def parent_of_command_line() -> int | None:
    """Removes `--parent=PID` from the command line and returns the process id; None if the option is missing."""
    if len(sys.argv) > 1 and sys.argv[1].startswith(PARENT):
        return int(sys.argv.pop(1).removeprefix(PARENT))
    return None


def _watch(parent: int, number: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), number)


def main() -> None:
    """Runs the module that the command line names."""
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
