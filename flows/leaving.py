"""A process whose work is done leaves at once.

After torch and MLflow Python takes seconds to take its modules apart, memory that the system gets back anyway. What others have
registered to run at exit (Prefect's logs, MLflow's queues) still runs: this was registered first, so it comes last.
"""

from __future__ import annotations

import atexit
import os
import sys

_well = False


def work_is_done() -> None:
    """From now on the end of this process is its success, and quick. To be called where nothing can fail any more."""
    global _well
    _well = True


@atexit.register
def _leave() -> None:
    if _well:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
