"""This package runs the stages: it wraps detr_core in Prefect flows, records runs in MLflow, and starts the servers."""

import os
import sys

from flows.runtime import fast_exit, orphans  # noqa: F401  fast_exit comes first: its docstring says why
from flows.tracking.tracking_address import separate_credentials

# This call comes before the imports that take seconds, because the process that started this one may end during them.
if "DVC_STAGE" in os.environ:
    orphans.end_with_dvc()
elif "prefect.engine" in sys.orig_argv:
    orphans.end_with_worker()

separate_credentials(os.environ)  # this comes before MLflow is imported and before any other process is started

# Prefect and MLflow read these variables when they are imported. With them, neither sends usage statistics to its makers.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# A thread that waits for other threads spins for microseconds, then sleeps. Endless spinning would stall other programs on the
# same cores, and sleeping at once would double the time of a small detector's training step.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
