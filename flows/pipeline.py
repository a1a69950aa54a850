"""Runs the whole pipeline as one flow: it runs `dvc repro` for each stage of dvc.yaml in order, each as a Prefect task.

It is started by `python -m flows.pipeline [--profile demo]`, or as the deployment `detr-pipeline`. DVC decides which stages are
up to date. No other file runs the command dvc.
"""

from __future__ import annotations

from flows.runtime import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

import json
import subprocess
import sys
from collections import deque

import yaml
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from rich.console import Console
from rich.table import Table

from detr_core.errors import ExpectedError
from flows.profile.paths import DEFAULT_PROFILE, ROOT, Paths, relative
from flows.profile.settings import load
from flows.runtime import stage_runner
from flows.runtime.child_process import command_ending_with_parent, ended
from flows.tracking import dead_runs, ui_addresses

# The summary shows these metrics of evaluation/metrics.json, under these names.
SUMMARY = {
    "val/AP": "AP of boxes",
    "val/AP50": "AP50 of boxes",
    "val/mask/AP": "AP of masks",
    "val/PQ": "PQ",
    "val/PQ_things": "PQ of things",
    "val/PQ_stuff": "PQ of stuff",
}


class PipelineError(ExpectedError, RuntimeError):
    """A stage of the pipeline failed. The message is one line with the stage's error."""


@flow(name="detr-pipeline", flow_run_name="pipeline {profile}", on_running=[dead_runs.tag_flow_run])
def pipeline(profile: str = DEFAULT_PROFILE) -> dict[str, float]:
    """Runs every stage of a profile that isn't up to date. Returns the metrics of the evaluation."""
    load(profile)
    paths = Paths(profile)
    for name in stages(paths):
        reproduce.with_options(name=name, task_run_name=f"{name} {profile}")(name, profile)
    metrics: dict[str, float] = json.loads((paths.evaluation / "metrics.json").read_text(encoding="utf-8"))
    Console().print(summary(metrics, paths))
    return metrics


@task(cache_policy=NO_CACHE)  # Prefect's cache would skip a stage whose outputs were deleted; DVC checks them
def reproduce(name: str, profile: str) -> None:
    """Runs `dvc repro` for one stage. Raises PipelineError if it fails."""
    target = f"{relative(Paths(profile).dvc_folder / 'dvc.yaml')}:{name}"
    code, reason = _run(command_ending_with_parent("dvc", "repro", "--single-item", target))
    if code != 0:
        raise PipelineError(f"stage {name} of profile {profile!r} failed{f': {reason}' if reason else ''}")


def stages(paths: Paths) -> list[str]:
    """Returns the stages of the profile's dvc.yaml, which lists each stage after the stages that it depends on."""
    return list(yaml.safe_load((paths.dvc_folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def summary(metrics: dict[str, float], paths: Paths) -> Table:
    """Returns a table of the evaluation's main metrics, and of commands and pages that show more."""
    table = Table(title=f"Profile {paths.profile}", show_header=False)
    for key, name in SUMMARY.items():
        if key in metrics:
            table.add_row(name, f"{metrics[key]:.3f}")
    table.add_section()
    table.add_row("The report", relative(paths.report / "index.html"))
    table.add_row("All metrics", "dvc metrics show")
    table.add_row("All runs", ui_addresses.to_open(ui_addresses.home()))
    return table


def _run(command: list[str]) -> tuple[int, str]:
    """Runs a command, and returns the exit code, and the last error line if the output is not a terminal.

    Without a terminal its output goes to the log of the flow run.
    """
    logger = get_run_logger()
    last = deque[str](maxlen=100)
    terminal = sys.stdout.isatty()  # a stage's live bar needs the terminal itself, not a pipe
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=None if terminal else subprocess.PIPE,
        stderr=None if terminal else subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with ended(process):
        for line in process.stdout or ():
            logger.info(line.rstrip())
            last.append(line.strip())
        code = process.wait()
    errors = [line for line in last if line.startswith("error: ")]
    return code, errors[0].removeprefix("error: ") if errors else ""


def main() -> None:
    stage_runner.main("pipeline", pipeline)


if __name__ == "__main__":
    main()
