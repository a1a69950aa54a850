"""Carrying the stages out: Prefect flows around detr_core, MLflow records, and the servers they talk to."""

import os
import sys

from flows import leaving, orphans  # noqa: F401  leaving before all others, see there
from flows.tracking_address import separate_credentials

# Before all that takes seconds: whoever has started this process may end meanwhile.
if "DVC_STAGE" in os.environ:
    orphans.follow_dvc()
elif "prefect.engine" in sys.orig_argv:
    orphans.follow_worker()

separate_credentials(os.environ)  # before MLflow is imported, and before any other process is started

# Before prefect and mlflow are imported, which read these then: nothing that runs here reports home.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# A thread that waits for the others spins for microseconds, then sleeps: endless spinning stalls whoever shares the cores, and
# sleeping at once takes twice the time of a small detector's step.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
