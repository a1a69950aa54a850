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

import yaml
from rich.console import Console
from rich.table import Table

from detr_core.errors import ExpectedError
from flows.pipeline import stages
from flows.profile.paths import ROOT, Paths, relative
from flows.profile.settings import load
from flows.runtime.one_line_errors import one_line_errors
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


class BenchmarkError(ExpectedError, RuntimeError):
    """The overhead can't be measured. The message says what is missing or which command failed."""


def bare_seconds(stage: str, profile: str) -> float:
    """Returns the seconds that the stage's `run()` takes."""
    return float(output([sys.executable, "-c", BARE, stage, profile]).splitlines()[-1])


def seconds(command: list[str]) -> float:
    """Returns the seconds that the command takes."""
    began = time.monotonic()
    output(command)
    return time.monotonic() - began


def output(command: list[str]) -> str:
    """Returns the output of the command. Raises BenchmarkError, with the last lines of the output, if the command fails."""
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        lines = (process.stdout + process.stderr).strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")] or lines[-3:]
        name = next(part for part in (*command[1:], command[0]) if not part.startswith("-") and "\n" not in part)
        raise BenchmarkError(f"the command {name!r} failed with exit code {process.returncode}: {' '.join(errors)}")
    return process.stdout


def require_inputs(stage: str, paths: Paths) -> None:
    """Raises BenchmarkError if the stage depends on a result of the profile that does not exist."""
    graph = paths.dvc_folder / "dvc.yaml"
    for name in yaml.safe_load(graph.read_text(encoding="utf-8"))["stages"][stage]["deps"]:
        path = ROOT / name.replace("${profile}", paths.profile)
        if "${profile}" in name and not path.exists():
            raise BenchmarkError(
                f"{relative(path)}: expected this result, which the stage {stage} reads, found nothing there; "
                f"run `dvc repro {relative(graph)}` first"
            )


def main() -> None:
    """Prints the table, and exits with 1 if a stage's overhead is above ALLOWED_SECONDS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="smoke", help="name of the profile (default: %(default)s)")
    parser.add_argument("--stage", action="append", help="a stage of dvc.yaml; may be repeated (default: data, studies)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="number of runs, of which the fastest is reported (default: %(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats: expected 1 or more, found {arguments.repeats}")
    with one_line_errors():
        load(arguments.profile)  # raises the error of a profile that does not exist or is not valid
        worst = measure(arguments.profile, arguments.stage or ["data", "studies"], arguments.repeats)
    if worst > ALLOWED_SECONDS:
        sys.exit(f"the overhead is above the allowed {ALLOWED_SECONDS:.0f} s")


def measure(profile: str, names: list[str], repeats: int) -> float:
    """Prints the table of these stages, and returns the largest overhead. Raises BenchmarkError."""
    paths = Paths(profile)
    known = stages(paths)
    for stage in names:
        if stage not in known:
            raise BenchmarkError(f"--stage: expected one of {', '.join(known)}, found {stage!r}")
        require_inputs(stage, paths)
    ensure_server()
    table = Table("stage", "only run()", "+ Prefect, MLflow", "+ DVC", "overhead", title=f"Seconds, profile {profile}")
    worst = 0.0
    for stage in names:
        target = f"{relative(paths.dvc_folder / 'dvc.yaml')}:{stage}"
        tries = range(repeats)
        bare = min(bare_seconds(stage, profile) for _ in tries)
        flow = min(seconds([sys.executable, "-m", f"flows.{stage}", "--profile", profile]) for _ in tries)
        dvc = min(seconds([sys.executable, "-m", "dvc", "repro", "--single-item", "--force", target]) for _ in tries)
        worst = max(worst, dvc - bare)
        table.add_row(stage, f"{bare:.1f}", f"{flow - bare:+.1f}", f"{dvc - flow:+.1f}", f"{dvc - bare:.1f}")
    Console().print(table)
    return worst


if __name__ == "__main__":
    main()
