"""One training on two machines: network namespaces with a cable between them, and a checkout and a home of its own for each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch

from detr_core.jobs.training import TrainingJob
from detr_core.reporter import Silent
from flows.runtime import launch
from tests.conftest import ROOT
from tests.jobs.training_jobs import history, job, weights

PORT = 29_411


@dataclass(frozen=True)
class Machine:
    """One of the two machines. address: that of its end of the cable. folder: its checkout, which has the code and the data."""

    namespace: str
    address: str
    folder: Path

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Starts a command in the checkout, in a session of its own; its output is in the file `log` beside the checkout."""
        home = self.folder.parent / "home"
        home.mkdir(exist_ok=True)
        variables = {"HOME": str(home), "GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.folder)}
        with (self.folder.parent / "log").open("a") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *command],
                cwd=self.folder,
                env=os.environ | variables | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kills all processes of the machine, as a loss of power does."""
        listing = subprocess.run(["ip", "netns", "pids", self.namespace], check=True, capture_output=True, text=True).stdout
        for process in listing.split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)

    def log(self) -> str:
        return (self.folder.parent / "log").read_text()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines(dataset: Path, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Yields two machines with their own checkouts, in which `data` has the dataset."""
    names = [f"detr-{os.getpid()}-{number}" for number in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets nobody create network namespaces")
    both = []
    try:
        ends = [f"detr{os.getpid() % 100_000}{letter}" for letter in "ab"]
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True)):
            machine = Machine(name, f"10.77.0.{number + 1}", tmp_path / f"machine{number}" / "checkout")
            ip("link", "set", end, "netns", name, "name", "cable")
            for arguments in (["addr", "add", f"{machine.address}/24", "dev", "cable"], ["link", "set", "cable", "up"]):
                ip("-n", name, *arguments)
            ip("-n", name, "link", "set", "lo", "up")
            for package in ("detr_core", "flows"):
                shutil.copytree(ROOT / package, machine.folder / package, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copytree(dataset, machine.folder / "data")
            both.append(machine)
        yield both[0], both[1]
    finally:
        for machine in both:
            machine.kill()
        for name in names:
            with suppress(subprocess.CalledProcessError):
                ip("netns", "delete", name)


def training(dataset: Path, folder: Path) -> TrainingJob:
    """Returns a training of a detector with dropout, of twelve steps, each of which is saved."""
    return job(dataset, folder, dropout=0.1, epochs=4, checkpoint_every=1)


def on_machines(machines: tuple[Machine, Machine], module: str, argument: str) -> list[subprocess.Popen[str]]:
    """Starts the job of the first machine by torchrun on both machines; the second one has no file of it."""
    return [
        by_torchrun(machine, number, machines[0], module, argument if number == 0 else "-")
        for number, machine in enumerate(machines)
    ]


def by_torchrun(machine: Machine, number: int, first: Machine, module: str, argument: str) -> subprocess.Popen[str]:
    where = ["--rdzv-backend=c10d", f"--rdzv-endpoint={first.address}:{PORT}", f"--local-addr={machine.address}"]
    options = ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", f"--rdzv-conf=is_host={number == 0}"]
    return machine.start(sys.executable, "-m", "torch.distributed.run", *options, *where, "-m", module, argument)


def require_success(machines: tuple[Machine, Machine], processes: list[subprocess.Popen[str]]) -> None:
    for machine, process in zip(machines, processes, strict=True):
        assert process.wait(timeout=240) == 0, machine.log()


def wait_for(file: Path, process: subprocess.Popen[str], machine: Machine) -> None:
    until = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, machine.log()
        assert time.monotonic() < until, machine.log()
        time.sleep(0.05)


def test_two_machines_train_as_two_processes_do_and_a_killed_machine_rejoins(
    machines: tuple[Machine, Machine], dataset: Path, tmp_path: Path
) -> None:
    launch.run(asdict(training(dataset, tmp_path / "one machine")), 2, Silent())
    first, second = machines
    described = replace(training(dataset, tmp_path), data="data", work="work", out="out")
    (first.folder / "JOB.json").write_text(json.dumps(asdict(described)))
    processes = on_machines(machines, "detr_core.jobs.train_detection", "JOB.json")
    wait_for(first.folder / "work" / "state.pt", processes[0], first)
    second.kill()
    processes[1].wait()
    processes[1] = by_torchrun(second, 1, first, "detr_core.jobs.train_detection", "-")
    require_success(machines, processes)
    assert "resuming after step" in first.log()
    ours, theirs = weights(first.folder), weights(tmp_path / "one machine")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert history(first.folder) == history(tmp_path / "one machine")
    assert not (second.folder / "out").exists()
    assert not (second.folder / "work").exists()


def test_other_data_on_the_second_machine_are_refused_with_both_digests(
    machines: tuple[Machine, Machine], dataset: Path, tmp_path: Path
) -> None:
    first, second = machines
    file = second.folder / "data" / "annotations" / "instances_train.json"
    file.write_text(file.read_text() + " ")
    described = replace(training(dataset, tmp_path), data="data", work="work", out="out")
    (first.folder / "JOB.json").write_text(json.dumps(asdict(described)))
    processes = on_machines(machines, "detr_core.jobs.train_detection", "JOB.json")
    for process in processes:
        assert process.wait(timeout=240) != 0
    assert "train split, instances_train.json: expected the same content on all machines, found the digest" in first.log()
    assert not (first.folder / "out").exists()
