"""Runs two and then four of each command at once in one project: `python -m tests.faults.concurrency --times 2 4`.

The commands build the same results of one tiny profile. Afterwards each result must exist once and have the bytes of a result
that one command built by itself, no temporary folder and no process may be left, and no run may be said to be running in MLflow
or Prefect. All of it happens in a temporary copy of the project.
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.child_processes import wait_for
from tests.faults.kills import PROFILE, SECONDS_TO_END, SLOW, Trials

GRAPH = f"params/{PROFILE}/dvc.yaml"
STUDY = "losses"  # a study that trains variants

# The commands, and the folders that each of them builds. A report names the runs that it shows, so its bytes differ.
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "data": (["flows.data", "--profile", PROFILE], ["data/{}"]),
    "check": (["flows.check", "--profile", PROFILE], ["runs/{}/check", "runs/{}/dataset"]),
    "train_detection": (["flows.train_detection", "--profile", PROFILE], ["runs/{}/detection"]),
    "train_panoptic": (["flows.train_panoptic", "--profile", PROFILE], ["runs/{}/panoptic"]),
    "evaluate": (["flows.evaluate", "--profile", PROFILE], ["runs/{}/evaluation"]),
    "evaluating studies": (["flows.studies", "--profile", PROFILE], ["runs/{}/studies/evaluating"]),
    "a training study": (["flows.studies", STUDY, "--profile", PROFILE], [f"runs/{{}}/studies/training/{STUDY}"]),
    "report": (["flows.report", "--profile", PROFILE], []),
    "dvc repro": (["dvc", "repro", "--force", GRAPH], ["data/{}", "runs/{}/detection", "runs/{}/panoptic", "runs/{}/evaluation"]),
}
# dvc does not wait for another dvc. It ends with one of these messages, the second of which names the other process.
DVC_IS_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")


def at_once(trials: Trials, words: list[str], times: int) -> list[str]:
    """Runs this many copies of one command at the same time, and returns the problems."""
    logs = [f"command{number}.log" for number in range(times)]
    processes: list[subprocess.Popen[bytes]] = [trials.start(*words, log=log) for log in logs]
    codes = [process.wait(SLOW * times) for process in processes]
    problems = []
    for code, log in zip(codes, logs, strict=True):
        output = trials.said(log)
        if code != 0 and not (words[0] == "dvc" and any(message in output for message in DVC_IS_BUSY)):
            problems.append(f"one ended with {code}: {output}")
        if "Traceback" in output:
            problems.append(f"one printed a traceback: {output}")
    if not any(code == 0 for code in codes):
        problems.append("none succeeded")
    if not wait_for(lambda: not trials.processes(), SECONDS_TO_END):
        problems.append(f"left after {SECONDS_TO_END:.0f} s: {trials.described()}")
        trials.end_all()
    if running := trials.running():
        problems.append(f"said to be running: {', '.join(running)}")
    for folder in ("data", "runs", "reports", "metrics"):
        problems += [f"left: {path.relative_to(trials.project)}" for path in (trials.project / folder).rglob(".*.tmp")]
    if not (trials.project / "reports" / PROFILE / "index.html").read_text(encoding="utf-8").rstrip().endswith("</html>"):
        problems.append("the report is incomplete")
    return problems


def digests(project: Path, folders: list[str]) -> dict[str, str]:
    """Returns the digest of each file in these folders of the profile."""
    files = [file for folder in folders for file in (project / folder.format(PROFILE)).rglob("*") if file.is_file()]
    return {str(file.relative_to(project)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--commands", nargs="*", choices=list(COMMANDS), default=list(COMMANDS))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials.prepared(Path(folder))
        try:
            trials.carry_out("dvc", "repro", GRAPH)
            trials.carry_out("flows.studies", STUDY, "--profile", PROFILE)
            for name in arguments.commands:
                words, folders = COMMANDS[name]
                reference = digests(trials.project, folders)
                for times in arguments.times:
                    began = time.monotonic()
                    problems = at_once(trials, words, times)
                    now = digests(trials.project, folders)
                    differing = sorted(path for path in now.keys() | reference.keys() if now.get(path) != reference.get(path))
                    if differing:
                        problems.append(f"the results differ: {', '.join(differing)}")
                    bad += bool(problems)
                    result = "; ".join(problems) or "identical results, nothing left"
                    print(f"{times} of {name}: {result} ({time.monotonic() - began:.0f} s)", flush=True)
        finally:
            trials.end_all()
    print(f"{bad} of {len(arguments.commands) * len(arguments.times)} trials went wrong")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
