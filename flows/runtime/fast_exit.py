"""Lets a process whose work is done exit at once.

With torch and MLflow loaded, Python takes seconds to free its modules at exit, although the system frees the memory anyway. The
exit functions of other modules (Prefect's logs, MLflow's queues) still run: functions run in reverse order of their
registration, so this module must be imported first.
"""

from __future__ import annotations

import atexit
import os
import sys

_succeeded = False


def work_is_done() -> None:
    """Makes this process exit quickly with code 0 when it ends. Call it only when nothing can fail any more."""
    global _succeeded
    _succeeded = True


@atexit.register
def _exit() -> None:
    if _succeeded:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
