"""The Prefect server that stages share: there is one server, and it ends with the last stage, even if that stage is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.runtime.server import answers
from tests.child_processes import first_line

STAGE = """
import time
from flows.runtime.server import ensure_server
print(ensure_server(), flush=True)
time.sleep(200)
"""


def start(checkout: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", STAGE], cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Returns all processes whose working directory is this folder."""
    processes = []
    for process in psutil.process_iter(["cwd", "status"]):
        if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            processes.append(process)
    return processes


@pytest.fixture
def nowhere(environment: dict[str, str]) -> dict[str, str]:
    """Returns an environment whose configured server is down, whatever runs on this machine."""
    return environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}


def test_two_commands_share_a_server_that_is_restarted_when_killed_and_ends_after_the_last(
    checkout: Path, nowhere: dict[str, str]
) -> None:
    first, second = start(checkout, nowhere), start(checkout, nowhere)
    try:
        url = first_line(first)
        assert first_line(second) == url
        assert url.startswith("http://127.0.0.1:")
        first.kill()
        first.wait()
        time.sleep(3)
        assert answers(url)  # the second needs it
        for process in processes_in(checkout):
            if "flows.runtime.child_process" in process.cmdline():
                process.kill()  # the server itself
        deadline = time.monotonic() + 120
        while answers(url) and time.monotonic() < deadline:
            time.sleep(0.1)
        while not answers(url) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert answers(url)  # started again, where the second looks for it
    finally:
        for stage in (first, second):
            stage.kill()
            stage.wait()
    deadline = time.monotonic() + 60
    while processes_in(checkout) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert processes_in(checkout) == []
    assert not answers(url)


def test_a_bad_profile_is_one_line_before_any_server(checkout: Path, nowhere: dict[str, str]) -> None:
    command = [sys.executable, "-m", "flows.data", "--profile", "demoo"]
    done = subprocess.run(command, cwd=checkout, env=nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: profile 'demoo': there is no params/demoo.yaml; did you mean 'demo'?\n"
    assert done.stdout == ""


def test_what_is_no_prefect_server_does_not_answer() -> None:
    assert not answers("http://127.0.0.1:9/api")
