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


def by_torchrun(machines: tuple[Machine, Machine]) -> list[subprocess.Popen[str]]:
    """Starts the job of the first machine by torchrun on both machines; the second one has no file of it."""
    where = [f"--master-addr={machines[0].address}", f"--master-port={PORT}"]
    return [
        machine.start(
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}", *where),
            *("-m", "detr_core.jobs.train_detection", "JOB.json" if number == 0 else "-"),
        )
        for number, machine in enumerate(machines)
    ]


LAUNCH = """
import json, sys
from pathlib import Path
from flows.runtime import launch
from flows.runtime.joining import Lines
from flows.runtime.machines import Machines

number, address, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
job = json.loads(Path("JOB.json").read_text()) if number == 0 else {"profile": "tiny", "stage": "detection"}
launch.run(job, 1, Lines(), hardware=launch.Hardware(machines=Machines(2, number, address, port)))
"""


def by_launch(machine: Machine, number: int, first: Machine) -> subprocess.Popen[str]:
    """Starts the part of one machine as the stage does."""
    return machine.start(sys.executable, "-c", LAUNCH, str(number), first.address, str(PORT))


def require_success(machines: tuple[Machine, Machine], processes: list[subprocess.Popen[str]]) -> None:
    for machine, process in zip(machines, processes, strict=True):
        assert process.wait(timeout=240) == 0, machine.log()


def wait_for(file: Path, process: subprocess.Popen[str], machine: Machine) -> None:
    until = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, machine.log()
        assert time.monotonic() < until, machine.log()
        time.sleep(0.05)


def write_job(machine: Machine, dataset: Path) -> None:
    described = replace(training(dataset, machine.folder), data="data", work="work", out="out")
    (machine.folder / "JOB.json").write_text(json.dumps(asdict(described)))


@pytest.fixture(scope="module")
def expected(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the same training in two processes of one machine."""
    folder = tmp_path_factory.mktemp("one machine")
    launch.run(asdict(training(dataset, folder)), 2, Silent())
    return folder


def require_equal(machines: tuple[Machine, Machine], expected: Path) -> None:
    """Asserts that the first machine has the expected results, bit for bit, and the second one none."""
    ours, theirs = weights(machines[0].folder), weights(expected)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert history(machines[0].folder) == history(expected)
    assert not (machines[1].folder / "out").exists()
    assert not (machines[1].folder / "work").exists()


def test_two_machines_train_as_two_processes_do(machines: tuple[Machine, Machine], dataset: Path, expected: Path) -> None:
    write_job(machines[0], dataset)
    require_success(machines, by_torchrun(machines))
    require_equal(machines, expected)


@pytest.mark.long
def test_after_the_loss_of_a_machine_torchrun_continues_with_the_same_result(
    machines: tuple[Machine, Machine], dataset: Path, expected: Path
) -> None:
    first, second = machines
    write_job(first, dataset)
    processes = by_torchrun(machines)
    wait_for(first.folder / "work" / "state.pt", processes[0], first)
    second.kill()
    assert processes[0].wait(timeout=240) != 0
    require_success(machines, by_torchrun(machines))
    assert "resuming after step" in first.log()
    require_equal(machines, expected)


@pytest.mark.long
def test_a_lost_machine_rejoins_while_the_first_one_waits(
    machines: tuple[Machine, Machine], dataset: Path, expected: Path
) -> None:
    first, second = machines
    write_job(first, dataset)
    processes = [by_launch(machine, number, first) for number, machine in enumerate(machines)]
    wait_for(first.folder / "work" / "state.pt", processes[0], first)
    second.kill()
    processes[1].wait()
    processes[1] = by_launch(second, 1, first)
    require_success(machines, processes)
    assert "the connection to another machine was lost; waiting for all 2 machines at 10.77.0.1:29411" in first.log()
    assert "resuming after step" in first.log()
    require_equal(machines, expected)


@pytest.mark.long
def test_other_data_on_the_second_machine_are_refused_with_both_digests(machines: tuple[Machine, Machine], dataset: Path) -> None:
    first, second = machines
    file = second.folder / "data" / "annotations" / "instances_train.json"
    file.write_text(file.read_text() + " ")
    write_job(first, dataset)
    for process in by_torchrun(machines):
        assert process.wait(timeout=240) != 0
    assert "train split, instances_train.json: expected the same content on all machines, found the digest" in first.log()
    assert not (first.folder / "out").exists()
