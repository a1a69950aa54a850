"""Repeatedly kills a process of a running training at a random moment: `python -m tests.faults.kills --kills 60 --seed 0`.

After each kill -9 three conditions must hold. No process is left after 10 seconds, the next `dvc repro` gives the same bytes as
an undisturbed training, and after that no run has the status running in MLflow or Prefect. If the Prefect server is killed, the
training must continue and succeed. The trials run in a temporary copy of the project with a tiny profile. Starting a server takes
most of the time of such a small training, so trials that kill neither the server nor its owner share one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows.runtime.processes import identity
from tests.child_processes import wait_for
from tests.conftest import tiny_parameters, write_parameters
from tests.flows.conftest import committed, git

PROFILE = "smoke"
STAGE = f"params/{PROFILE}/dvc.yaml:train_detection"
SECONDS_TO_END = 10.0
SLOW = 600.0  # largest duration of a command on a busy machine, seconds
MARK = "DETR_FAULTS"  # environment variable that identifies the processes of a trial, even after their parent has ended

# Role of the killed process -> a function that recognises its command line.
ROLES: dict[str, Callable[[list[str]], bool]] = {
    "dvc in its first seconds": lambda words: "repro" in words,
    "dvc": lambda words: "repro" in words,
    "stage": lambda words: "flows.train_detection" in words,
    "rank": lambda words: "detr_core.jobs.train_detection" in words,
    "Prefect server": lambda words: "flows.runtime.child_process" in words and "server" in words,
    "Prefect worker": lambda words: "flows.runtime.child_process" in words and "worker" in words,
    "guard of the Prefect worker": lambda words: "flows.runtime.guard" in words and "worker" in words,
    "serve": lambda words: "flows.serve" in words,
}
ON_A_WORKER = ("Prefect worker", "guard of the Prefect worker", "serve")
ON_A_SHARED_SERVER = ("stage", "rank")


@dataclass
class Trials:
    """A copy of the project in which processes of trainings are killed. reference: the results of an undisturbed training."""

    project: Path
    environment: dict[str, str]
    reference: dict[str, str]
    server_shared: bool = False

    @classmethod
    def prepared(cls, folder: Path) -> Trials:
        """Creates the copy, generates its data and trains its detector once."""
        project = committed(folder)
        parameters = tiny_parameters()
        parameters["train_detection"] |= {"epochs": 12, "checkpoint_every": 2, "validate_every": 6}
        write_parameters(project / "params" / f"{PROFILE}.yaml", parameters)
        (project / ".venv").symlink_to(Path(sys.prefix))
        git(project, "commit", "-qam", "a tiny profile")
        trials = cls(project, marked_environment(), {})
        try:
            trials.carry_out("dvc", "repro", STAGE)
        except BaseException:
            trials.end_all()
            raise
        trials.reference = results_in(project)
        return trials

    def carry_out(self, *module: str) -> None:
        """Runs a module, which must succeed and leave no process."""
        assert self.start(*module).wait(SLOW) == 0, self.said()
        assert wait_for(lambda: not self.processes(), SECONDS_TO_END), self.described()

    def start(self, *module: str, log: str = "command.log") -> subprocess.Popen[bytes]:
        with (self.project / log).open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=self.project,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self, log: str = "command.log") -> str:
        return (self.project / log).read_text(errors="replace")[-3000:]

    def processes(self) -> list[psutil.Process]:
        """Returns all running processes that a trial has started, with any parent, except for the server that trials share."""
        return [process for process in _marked(self.environment[MARK]) if not (self.server_shared and _of_server(process))]

    def share_server(self, shared: bool) -> None:
        """Makes this process an owner of the project's server, or ends its ownership, after which the server must end in 10 s."""
        owner = self.project / ".state/server/owners" / str(os.getpid())  # see flows/runtime/owners.py
        self.server_shared = shared
        if shared:
            owner.write_text(identity())
        else:
            owner.unlink(missing_ok=True)
            assert wait_for(lambda: not self.processes(), SECONDS_TO_END), self.described()

    def described(self) -> str:
        lines = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                lines.append(f"{process.pid} {' '.join(process.cmdline())[-120:]}")
        return "; ".join(lines)

    def trains(self) -> bool:
        """Returns whether a training is running and has saved a state."""
        return any((self.project / ".state").rglob("state.pt"))

    def running(self) -> list[str]:
        """Returns the runs that have the status running in MLflow or Prefect."""
        mlflow = _select(self.project / ".state/mlflow/mlflow.db", "select run_uuid from runs where status = 'RUNNING'")
        flows = _select(self.project / ".state/prefect/prefect.db", "select id from flow_run where state_type = 'RUNNING'")
        tasks = _select(self.project / ".state/prefect/prefect.db", "select id from task_run where state_type = 'RUNNING'")
        return [f"{kind} {key}" for kind, keys in (("MLflow", mlflow), ("flow", flows), ("task", tasks)) for key in keys]

    def kill(self, role: str, moment: float) -> list[str]:
        """Starts a training, kills the process of this role at this moment (0 to 1), and returns the problems afterwards."""
        if self.server_shared != (role in ON_A_SHARED_SERVER):
            self.share_server(role in ON_A_SHARED_SERVER)
        command = self._begun(role)
        if role == "dvc in its first seconds":
            time.sleep(3 * moment)
        elif not wait_for(lambda: self.trains() or command.poll() is not None, SLOW) or not self.trains():
            return [f"the training did not begin: {self.said()}"]
        else:
            time.sleep(moment)
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if ROLES[role](process.cmdline()):
                    process.kill()
                    break
        else:
            return ["the process to kill was not found"]
        problems = []
        if role == "Prefect server" and command.wait(SLOW) != 0:
            problems.append(f"the training failed: {self.said()}")
        if role == "rank":
            command.wait(SLOW)  # the stage reports that the process was killed
        if not wait_for(lambda: not self.processes(), SECONDS_TO_END):
            problems.append(f"processes left after {SECONDS_TO_END:.0f} s: {self.described()}")
            self.end_all()
        command.wait(SLOW)
        return problems + self._repeated()

    def _begun(self, role: str) -> subprocess.Popen[bytes]:
        """Starts a forced training with dvc, or with the pipeline's deployment on a Prefect worker."""
        if role not in ON_A_WORKER:
            return self.start("dvc", "repro", "--force", "--single-item", STAGE)
        for file in (self.project / "runs" / PROFILE / "detection").iterdir():
            file.unlink()
        ports = [str(port) for port in _free_ports(2)]
        command = self.start("flows.serve", "--prefect-port", ports[0], "--mlflow-port", ports[1])
        wait_for(lambda: "ctrl-c" in self.said() or command.poll() is not None, SLOW)
        subprocess.run(
            [sys.executable, "-m", "prefect", "deployment", "run", "detr-pipeline/detr-pipeline", "-p", f"profile={PROFILE}"],
            cwd=self.project,
            env=self.environment | {"PREFECT_API_URL": f"http://127.0.0.1:{ports[0]}/api"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return command

    def _repeated(self) -> list[str]:
        """Runs the next training and returns the problems after it."""
        problems = []
        repetition = self.start("dvc", "repro", "--force", "--single-item", STAGE)
        if repetition.wait(SLOW) != 0:
            problems.append(f"the next command failed: {self.said()}")
        if results_in(self.project) != self.reference:
            problems.append("the results differ")
        if running := self.running():
            problems.append(f"runs with the status running: {', '.join(running)}")
        if not wait_for(lambda: not self.processes(), SECONDS_TO_END):
            problems.append(f"processes left after the next command: {self.described()}")
            self.end_all()
        return problems

    def end_all(self) -> None:
        """Ends the processes of the trials only."""
        for process in _marked(self.environment[MARK]):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def marked_environment() -> dict[str, str]:
    """Returns the environment of a trial: without addresses of servers, and with a unique value of the variable MARK."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "DVC_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    return own | {"PATH": path, "OMP_NUM_THREADS": "1", "PREFECT_API_URL": "http://127.0.0.1:9/api", MARK: uuid.uuid4().hex}


def results_in(project: Path) -> dict[str, str]:
    """Returns the digest of each file that the training of a detector has written."""
    folder = project / "runs" / PROFILE / "detection"
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def _of_server(process: psutil.Process) -> bool:
    """Returns whether the process is the project's own Prefect server, or the server's supervisor."""
    with suppress(psutil.NoSuchProcess):
        words = process.cmdline()
        return "flows.runtime.server" in words or {"prefect", "server", "start"} <= set(words)
    return False


def _select(database: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as connection:
        return [str(row[0]) for row in connection.execute(query)]


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def plan(kills: int, seed: int, roles: list[str]) -> list[tuple[str, float]]:
    """Returns the role and the moment of each kill. All roles occur equally often; roles that share a server are consecutive."""
    chance = random.Random(seed)
    chosen: list[str] = []
    while len(chosen) < kills:
        chosen += chance.sample(roles, len(roles))
    in_order = sorted(chosen[:kills], key=lambda role: role in ON_A_SHARED_SERVER)
    return [(role, chance.random()) for role in in_order]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--roles", nargs="*", choices=list(ROLES), default=list(ROLES))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials.prepared(Path(folder))
        try:
            for number, (role, moment) in enumerate(plan(arguments.kills, arguments.seed, arguments.roles), start=1):
                began = time.monotonic()
                problems = trials.kill(role, moment)
                bad += bool(problems)
                result = "; ".join(problems) or "the results are identical, no process is left, and no run has the status running"
                seconds = time.monotonic() - began
                print(f"{number}/{arguments.kills} {role} at {moment:.2f}: {result} ({seconds:.0f} s)", flush=True)
        finally:
            trials.end_all()
    print(f"{bad} of {arguments.kills} kills had a problem")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
