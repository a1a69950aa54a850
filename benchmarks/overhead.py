"""Measures the overhead of Prefect, MLflow and DVC: `python benchmarks/overhead.py [--profile smoke] [--stage data]`.

It produces the same result in three ways, each in its own process: only `run()`, `python -m flows.<stage>` (with Prefect and
MLflow), and `dvc repro` of that stage. The first time includes `run()` and torch's import, which are the work itself; importing
Prefect and MLflow is overhead. The Prefect server, which all stages of a pipeline share, is started before
the measurement and does not count.
The earlier stages must have run: `dvc repro params/smoke/dvc.yaml`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from flows.pipeline import stages
from flows.profile.paths import ROOT, Paths, relative
from flows.runtime.server import ensure_server

ALLOWED_SECONDS = 10.0
BARE = """
import importlib, sys, time
from detr_core.reporter import Silent
from flows.profile.paths import Paths
from flows.profile.settings import load
stage, profile = sys.argv[1:]
module = "flows.studies.evaluating" if stage == "studies" else f"flows.{stage}"
run, settings = importlib.import_module(module).run, load(profile)
began = time.monotonic()
run(settings, Paths(profile), Silent())
print(time.monotonic() - began)
"""


def bare_seconds(stage: str, profile: str) -> float:
    """Returns the seconds that the stage's `run()` takes."""
    return float(output([sys.executable, "-c", BARE, stage, profile]).splitlines()[-1])


def seconds(command: list[str]) -> float:
    """Returns the seconds that the command takes."""
    began = time.monotonic()
    output(command)
    return time.monotonic() - began


def output(command: list[str]) -> str:
    """Returns the output of the command. If the command fails, ends the benchmark with this output as error."""
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{process.stdout}{process.stderr}")
    return process.stdout


def main() -> None:
    """Prints the table, and exits with 1 if a stage's overhead is above ALLOWED_SECONDS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="smoke", help="name of the profile (default: %(default)s)")
    parser.add_argument("--stage", action="append", help="a stage of dvc.yaml; may be repeated (default: data, studies)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="number of runs, of which the fastest is reported (default: %(default)s)"
    )
    arguments = parser.parse_args()
    paths = Paths(arguments.profile)
    for stage in arguments.stage or ["data", "studies"]:
        if stage not in stages(paths):
            parser.error(f"--stage: expected one of {', '.join(stages(paths))}, found {stage!r}")
    ensure_server()
    table = Table("stage", "only run()", "+ Prefect, MLflow", "+ DVC", "overhead", title=f"Seconds, profile {arguments.profile}")
    worst = 0.0
    for stage in arguments.stage or ["data", "studies"]:
        target = f"{relative(paths.dvc_folder / 'dvc.yaml')}:{stage}"
        tries = range(arguments.repeats)
        bare = min(bare_seconds(stage, arguments.profile) for _ in tries)
        flow = min(seconds([sys.executable, "-m", f"flows.{stage}", "--profile", arguments.profile]) for _ in tries)
        dvc = min(seconds([sys.executable, "-m", "dvc", "repro", "--single-item", "--force", target]) for _ in tries)
        worst = max(worst, dvc - bare)
        table.add_row(stage, f"{bare:.1f}", f"{flow - bare:+.1f}", f"{dvc - flow:+.1f}", f"{dvc - bare:.1f}")
    Console().print(table)
    if worst > ALLOWED_SECONDS:
        sys.exit(f"the overhead is above the allowed {ALLOWED_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
