"""This command repeats a recorded run and compares the results. `python -m flows.rerun RUN_ID`

It needs only the run's id in MLflow, and restores the run's commit, uncommitted changes, parameters and data in a separate work
tree. On a CPU every metric at every step and every result file must be the same. On a GPU the last value of each metric must be
the same within a tolerance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from detr_core.wording import counted
from flows.profile.paths import Paths, relative
from flows.rerun import comparison, worktree
from flows.rerun.comparison import RunComparison
from flows.rerun.worktree import RerunError
from flows.runtime import arguments as command_line
from flows.runtime import launch
from flows.runtime.arguments import TOLERANCE
from flows.runtime.child_process import command_ending_with_parent, ended
from flows.runtime.one_line_errors import one_line_errors
from flows.runtime.server import ensure_server
from flows.tracking import reader, recorder, snapshot, ui_addresses
from flows.tracking.reader import RecordedRun
from flows.tracking.tracking_address import tracking_uri

SHOWN = 20  # at most this many differences are printed


def main() -> None:
    """Exits with 0 if the results are the same, and with 1 if they differ or the run can't be repeated."""
    arguments = command_line.parser("rerun").parse_args()
    with one_line_errors():
        same = rerun(arguments.run_id, arguments.tolerance, arguments.keep)
    sys.exit(0 if same else 1)


def rerun(run_id: str, tolerance: float = TOLERANCE, keep: bool = False) -> bool:
    """Repeats a run, prints the comparison, and returns whether the results are the same.

    Raises TrackingError if MLflow does not have the run, and RerunError if its code or data are not available or the repetition
    fails.
    """
    run = reader.recorded(run_id)
    require_a_stage(run)
    print(f"run {run_id}: {_title(run)}, commit {run.tags.get('git.commit', 'unknown')[:10]}", flush=True)
    tree = worktree.make(run)
    for line in _remarks(run, tree):
        print(line)
    print(f"repeating the run in {relative(tree)}", flush=True)
    after = reader.recorded(_repeat(run, tree))
    gpus = int(run.tags.get("machine.gpus", 0)) + int(after.tags.get("machine.gpus", 0))
    result = comparison.within(run, after, tolerance) if gpus else comparison.bit_for_bit(run, after)
    condition = f"within {tolerance:g}" if gpus else "bit for bit"
    _print_result(result, condition)
    reader.tag(run_id, "rerun", f"{'the same' if result.same else 'different'}, {condition}: run {after.run_id}")
    page = ui_addresses.compare_page([run_id, after.run_id], run.experiment_id)
    print(f"the page that compares both runs in MLflow: {ui_addresses.to_open(page)}")
    if result.same and not keep:
        worktree.remove(tree)
    else:
        print(f"the new results are in {relative(tree)}; `git worktree remove --force {relative(tree)}` removes them")
    return result.same


def require_a_stage(run: RecordedRun) -> None:
    """Raises RerunError unless the run is a finished run of a stage or of a whole study."""
    parent = run.tags.get(reader.PARENT)
    if parent is not None:
        raise RerunError(
            f"run {run.run_id}: expected a whole study, found one setting or variant of it; repeat the study's run {parent}"
        )
    if "stage" not in run.tags or "profile" not in run.tags:
        raise RerunError(f"run {run.run_id}: expected a run of one of this project's stages, found another run")
    if not run.tags["stage"].isidentifier() or Path(run.tags["profile"]).name != run.tags["profile"]:
        names = f"{run.tags['stage']!r} and {run.tags['profile']!r}"
        raise RerunError(f"run {run.run_id}: expected the names of a stage and a profile in its tags, found {names}")
    if run.status != "FINISHED":
        raise RerunError(
            f"run {run.run_id}: expected a run with the status FINISHED, found {run.status}; its results can't be compared"
        )


def _title(run: RecordedRun) -> str:
    study = f" {run.tags['study']}" if "study" in run.tags else ""
    return f"{run.tags['stage']}{study} of profile {run.tags['profile']}"


def _remarks(run: RecordedRun, tree: Path) -> list[str]:
    """Returns a message for each difference from the recorded run that may change the results."""
    remarks = []
    if run.patch:
        remarks.append("the run's code was not committed; the changes recorded with the run are applied")
    if snapshot.NEW_FILES in run.tags:
        remarks.append(
            f"the checkout of the run had files that git didn't know, which are missing: {run.tags[snapshot.NEW_FILES]}"
        )
    packages = worktree.other_packages(tree)
    if packages:
        examples = ", ".join(packages[:5]) + (f" and {len(packages) - 5} more" if len(packages) > 5 else "")
        remarks.append(f"this environment is used, although the run's {worktree.LOCK} has other versions: {examples}")
    now = snapshot.machine(Paths(run.tags["profile"]))
    for name in ("machine.processor", "machine.python", "machine.torch", "machine.gpus"):
        if name in run.tags and name in now and run.tags[name] != now[name]:
            change = f"the run had {run.tags[name]}, this machine has {now[name]}"
            remarks.append(f"{name.removeprefix('machine.')}: {change}; the last bits of the results may differ")
    if not run.results:
        remarks.append("no digests of result files were recorded with the run; only its metrics are compared")
    return remarks


def _repeat(run: RecordedRun, tree: Path) -> str:
    """Runs the stage in the work tree, and returns the id of its run in MLflow. Raises RerunError if the stage fails."""
    study = [run.tags["study"]] if "study" in run.tags else []
    command = command_ending_with_parent(f"flows.{run.tags['stage']}", *study, "--profile", run.tags["profile"])
    if not (tree / "flows" / "runtime").is_dir():  # a commit in which this module had another name
        command[command.index("flows.runtime.child_process")] = "flows.attached"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "OMP_NUM"))}
    environment |= {
        "PYTHONPATH": str(tree),
        "PREFECT_API_URL": ensure_server(),
        "MLFLOW_TRACKING_URI": tracking_uri(),
        # MLflow adds this tag to a run that begins under this environment, whatever code begins it.
        "MLFLOW_RUN_CONTEXT": json.dumps({recorder.RERUN_OF: run.run_id}),
    }
    code = _run(command, tree, environment | _threads(run))
    after = reader.repetition(run)
    if code != 0 or after is None:
        raise RerunError(f"the repetition of the run failed (exit code {code}); its work tree is {relative(tree)}")
    return after


def _threads(run: RecordedRun) -> dict[str, str]:
    """Returns the variable that sets the run's number of threads, because it decides the order and last bits of sums."""
    recorded_threads = run.tags.get("machine.threads")
    by_default = str(launch.threads(int(run.tags.get("machine.processes", 1))))
    return {} if recorded_threads is None or recorded_threads == by_default else {"OMP_NUM_THREADS": recorded_threads}


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, cwd=folder, env=environment, text=True)
    with ended(process):
        return process.wait()


def _print_result(result: RunComparison, condition: str) -> None:
    compared = " and ".join([counted(result.values, "value"), *([counted(result.files, "file")] if result.files else [])])
    if not result.values + result.files:
        print("there is nothing to compare: the run recorded neither metrics nor digests of its results")
    elif result.same:
        print(f"the results are the same, {condition}: {compared}")
    else:
        print(f"the results are not the same, {condition}: {len(result.differences)} of {compared} differ")
        for line in result.differences[:SHOWN]:
            print(f"  {line}")
        if len(result.differences) > SHOWN:
            print(f"  and {len(result.differences) - SHOWN} more")
