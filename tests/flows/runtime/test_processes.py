"""Identities of processes, the owners of a server, and runs whose process has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.runtime import owners, processes
from flows.tracking import dead_runs, recorder


def ended_process() -> str:
    """Returns the identity of a process that has ended."""
    process = subprocess.Popen(["sleep", "100"])
    known = processes.identity(process.pid)
    assert processes.lives(known) is True
    process.kill()
    process.wait()
    return known


def test_a_process_lives_until_it_ends_and_a_later_one_of_its_number_is_another() -> None:
    own = processes.identity()
    assert processes.lives(own) is True
    assert processes.lives(ended_process()) is False
    assert processes.lives(f"{processes.machine()}-{os.getpid()}-1") is False  # of the same number, but another start


def test_a_process_that_nobody_has_waited_for_has_ended() -> None:
    process = subprocess.Popen(["sleep", "100"])
    known = processes.identity(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert processes.lives(known) is False
    process.wait()


@pytest.mark.parametrize("text", ["00000000-1-5", "", "nonsense", "a-b-c"])
def test_a_process_of_another_machine_is_not_reported(text: str) -> None:
    assert processes.lives(text) is None


REGISTERING = """
import sys, time
from pathlib import Path
from flows.runtime import owners
owners.FOLDER = Path(sys.argv[1])
end = time.monotonic() + 3
while time.monotonic() < end:
    with owners.lock():
        owners.register()
"""


def test_a_living_owner_is_seen_by_every_look_while_owners_are_written_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "FOLDER", tmp_path / "owners")
    with owners.lock():
        owners.register()
    (owners.FOLDER / "999999").write_text(ended_process())
    registering = [subprocess.Popen([sys.executable, "-c", REGISTERING, str(owners.FOLDER)]) for _ in range(2)]
    looks = 0
    while any(process.poll() is None for process in registering):
        assert owners.exist()
        looks += 1
        if looks % 50 == 0:
            with owners.lock():
                owners.register()
    assert looks > 100
    assert [process.returncode for process in registering] == [0, 0]
    with owners.lock():
        owners.register()
    assert [file.name for file in owners.FOLDER.iterdir()] == [str(os.getpid())]


def test_only_runs_of_an_ended_process_of_this_machine_are_marked_in_mlflow(database: Path) -> None:
    client = recorder.mlflow.MlflowClient(f"sqlite:///{database}")
    experiment = client.create_experiment("detr tiny")
    owners = {"mine": processes.identity(), "dead": ended_process(), "elsewhere": "00000000-1-5"}
    runs = {name: client.create_run(experiment, tags={"process": known}).info.run_id for name, known in owners.items()}
    runs["unknown"] = client.create_run(experiment).info.run_id
    dead_runs.mark_in_mlflow(client)
    assert {name: client.get_run(run).info.status for name, run in runs.items()} == {
        "mine": "RUNNING",
        "dead": "KILLED",
        "elsewhere": "RUNNING",
        "unknown": "RUNNING",
    }
    assert client.get_run(runs["dead"]).data.tags["error"] == dead_runs.ENDED


def test_only_runs_of_an_ended_process_of_this_machine_are_marked_in_prefect(server: dict[str, str]) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Running

    owners = {"mine": processes.identity(), "dead": ended_process(), "elsewhere": "00000000-1-5"}
    url = server["PREFECT_API_URL"]
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        runs = {
            name: client.create_flow_run(flow(print, name="nothing"), tags=[f"process:{known}"], state=Running()).id
            for name, known in owners.items()
        }
        dead_runs.mark_in_prefect(url)
        states = {name: client.read_flow_run(run).state for name, run in runs.items()}
        for run in runs.values():
            client.delete_flow_run(run)
    actual = {name: None if state is None else state.type.value for name, state in states.items()}
    assert actual == {"mine": "RUNNING", "dead": "CRASHED", "elsewhere": "RUNNING"}
