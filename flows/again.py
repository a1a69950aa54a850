"""Command: a recorded run done again, and compared. `python -m flows.again RUN_ID`

From its id in MLflow alone: its commit with its changes, its parameters and the data that it read, in a work tree of their own.
On a CPU every value at every step and every file of its results must be the same; on a GPU the last values, within a tolerance.
"""

from __future__ import annotations

from flows import arguments as command_line

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

import json
import os
import subprocess
import sys
from pathlib import Path

from detr_core.wording import counted
from flows import comparison, launch, origin, pages, recorded, stage, tracking, worktree
from flows.arguments import TOLERANCE
from flows.attached import attached, ended
from flows.comparison import Comparison
from flows.paths import Paths, relative
from flows.recorded import Recorded
from flows.server import ensure_server
from flows.worktree import AgainError

SHOWN = 20  # differences


def main() -> None:
    """Exits with 0 where the results are the same, with 1 where they aren't or the run can't be done again."""
    arguments = command_line.parser("again").parse_args()
    with stage.one_line_errors():
        same = again(arguments.run_id, arguments.tolerance, arguments.keep)
    sys.exit(0 if same else 1)


def again(run_id: str, tolerance: float = TOLERANCE, keep: bool = False) -> bool:
    """Does the run again and says how it compares; whether it is the same.

    Raises TrackingError where MLflow doesn't have the run, AgainError where its code or data can't be had or it fails this time.
    """
    run = recorded.recorded(run_id)
    require_a_stage(run)
    print(f"run {run_id}: {_title(run)}, commit {run.tags.get('git.commit', 'unknown')[:10]}", flush=True)
    tree = worktree.make(run)
    for line in _remarks(run, tree):
        print(line)
    print(f"doing it again in {relative(tree)}", flush=True)
    after = recorded.recorded(_carried_out(run, tree))
    gpus = int(run.tags.get("machine.gpus", 0)) + int(after.tags.get("machine.gpus", 0))
    found = comparison.within(run, after, tolerance) if gpus else comparison.bit_for_bit(run, after)
    how = f"within {tolerance:g}" if gpus else "bit for bit"
    _say(found, how)
    recorded.tag(run_id, "again", f"{'the same' if found.same else 'different'}, {how}: run {after.run_id}")
    print(f"both in MLflow: {pages.to_open(pages.compare_page([run_id, after.run_id], run.experiment_id))}")
    if found.same and not keep:
        worktree.remove(tree)
    else:
        print(f"its results are in {relative(tree)}; `git worktree remove --force {relative(tree)}` removes them")
    return found.same


def require_a_stage(run: Recorded) -> None:
    parent = run.tags.get(recorded.PARENT)
    if parent is not None:
        raise AgainError(f"run {run.run_id}: one setting of a study; do the study's run again, {parent}")
    if "stage" not in run.tags or "profile" not in run.tags:
        raise AgainError(f"run {run.run_id}: not a run of one of this project's stages")
    if not run.tags["stage"].isidentifier() or Path(run.tags["profile"]).name != run.tags["profile"]:
        raise AgainError(f"run {run.run_id}: expected the names of a stage and a profile, found {run.tags['stage']!r} and others")
    if run.status != "FINISHED":
        raise AgainError(f"run {run.run_id}: expected a run that ended well, found {run.status}: there is nothing to compare")


def _title(run: Recorded) -> str:
    study = f" {run.tags['study']}" if "study" in run.tags else ""
    return f"{run.tags['stage']}{study} of profile {run.tags['profile']}"


def _remarks(run: Recorded, tree: Path) -> list[str]:
    """What is not as it was and may show in the results."""
    remarks = []
    if run.patch:
        remarks.append("its code was not committed; the changes kept with it are applied")
    if origin.NEW_FILES in run.tags:
        remarks.append(f"files that git didn't know then, and that are not here: {run.tags[origin.NEW_FILES]}")
    packages = worktree.other_packages(tree)
    if packages:
        listed = ", ".join(packages[:5]) + (f" and {len(packages) - 5} more" if len(packages) > 5 else "")
        remarks.append(f"its {worktree.LOCK} is not this environment's, which is used: {listed}")
    now = origin.machine(Paths(run.tags["profile"]))
    for name in ("machine.processor", "machine.python", "machine.torch", "machine.gpus"):
        if name in run.tags and name in now and run.tags[name] != now[name]:
            remarks.append(f"{name.removeprefix('machine.')}: {run.tags[name]} then, {now[name]} now; last bits may differ")
    if not run.results:
        remarks.append("it is older than the keeping of its results' digests: values alone are compared")
    return remarks


def _carried_out(run: Recorded, tree: Path) -> str:
    """The stage in the tree, recorded where the first run is; the id of its run. Raises AgainError where it fails."""
    study = [run.tags["study"]] if "study" in run.tags else []
    command = attached(f"flows.{run.tags['stage']}", *study, "--profile", run.tags["profile"])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "OMP_NUM"))}
    environment |= {
        "PYTHONPATH": str(tree),
        "PREFECT_API_URL": ensure_server(),
        "MLFLOW_TRACKING_URI": tracking.tracking_uri(),
        # MLflow adds this tag to a run that begins under this environment, whatever code begins it.
        "MLFLOW_RUN_CONTEXT": json.dumps({tracking.AGAIN: run.run_id}),
    }
    code = _run(command, tree, environment | _threads(run))
    after = recorded.repetition(run)
    if code != 0 or after is None:
        raise AgainError(f"it failed this time (exit code {code}); its work tree is {relative(tree)}")
    return after


def _threads(run: Recorded) -> dict[str, str]:
    """As many threads as then: sums in another order have other last bits."""
    then = run.tags.get("machine.threads")
    by_default = str(launch.threads(int(run.tags.get("machine.processes", 1))))
    return {} if then is None or then == by_default else {"OMP_NUM_THREADS": then}


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, cwd=folder, env=environment, text=True)
    with ended(process):
        return process.wait()


def _say(found: Comparison, how: str) -> None:
    compared = " and ".join([counted(found.values, "value"), *([counted(found.files, "file")] if found.files else [])])
    if not found.values + found.files:
        print("nothing to compare: the run recorded neither values nor digests of its results")
    elif found.same:
        print(f"the same, {how}: {compared}")
    else:
        print(f"not the same, {how}: {len(found.differences)} of {compared} differ")
        for line in found.differences[:SHOWN]:
            print(f"  {line}")
        if len(found.differences) > SHOWN:
            print(f"  and {len(found.differences) - SHOWN} more")


if __name__ == "__main__":
    main()
