"""`make serve`, and `prefect deployment run` with a deployment's bare name, with the locked Prefect."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from flows.profile.paths import ROOT
from flows.runtime.deployment_names import bare_name, current

SERVING_SECONDS = 240


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("prefect deployment run detr-ablations", "detr-ablations"),
        ("prefect --no-prompt deployments run detr-ablations -p profile=coco", "detr-ablations"),
        ("prefect deployment run -p profile=coco --watch detr-ablations", "detr-ablations"),
        ("prefect deployment run --tag night detr-ablations", "detr-ablations"),
        ("prefect deployment run studies/detr-ablations", None),
        ("prefect deployment run --id 0a1b", None),
        ("prefect deployment inspect detr-ablations", None),
        ("prefect work-pool ls", None),
        ("python -m flows.data --profile demo", None),
        ("deployment run", None),
    ],
)
def test_only_a_bare_name_of_that_command_is_looked_up(line: str, name: str | None) -> None:
    arguments = line.split()
    position = bare_name(arguments)
    assert (None if position is None else arguments[position]) == name


@dataclass(frozen=True)
class Deployment:
    entrypoint: str


def test_a_deployment_of_an_earlier_version_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier, now = Deployment("flows/ablations.py:ablations"), Deployment("flows/studies/flow.py:studies")
    monkeypatch.chdir(ROOT)
    assert current([earlier, now]) == [now]
    assert current([now, now]) == [now, now], "Prefect says that the name is not unique"
    assert current([earlier]) == [earlier]
    monkeypatch.chdir(tmp_path)
    assert current([earlier, now]) == [earlier, now], "this folder names no deployments"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Returns free ports for the Prefect server and for MLflow."""
    return free_port(), free_port()


@pytest.fixture
def at_server(environment: dict[str, str], ports: tuple[int, int]) -> dict[str, str]:
    """Returns an environment that names the Prefect server of `serving`."""
    return environment | {"PREFECT_API_URL": f"http://127.0.0.1:{ports[0]}/api"}


@pytest.fixture(scope="module")
def serving(checkout: Path, ports: tuple[int, int]) -> Iterator[subprocess.Popen[str]]:
    """Yields the process of `flows.serve` when it is ready."""
    command = [sys.executable, "-m", "flows.serve", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    output = checkout / "serve.out"
    with output.open("w") as stream:
        process = subprocess.Popen(command, cwd=checkout, stdout=stream, stderr=stream, text=True)
    deadline = time.monotonic() + SERVING_SECONDS
    while "ctrl-c" not in output.read_text() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
    assert "ctrl-c" in output.read_text(), output.read_text()
    yield process
    process.kill()
    process.wait()


def prefect(arguments: str, checkout: Path, environment: dict[str, str]) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("prefect")), *arguments.split()]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_served_deployments_start_by_their_bare_names_until_the_server_stops(
    checkout: Path, at_server: dict[str, str], serving: subprocess.Popen[str], ports: tuple[int, int]
) -> None:
    # Its addresses are printed.
    output = (checkout / "serve.out").read_text()
    assert f"http://127.0.0.1:{ports[0]}" in output
    assert f"http://127.0.0.1:{ports[1]}" in output

    # A bare name and a full one; a run that is not to begin while the test lasts.
    for name in ("detr-pipeline", "detr-ablations", "studies/detr-ablations"):
        code, output = prefect(f"deployment run {name} -p profile=smoke --start-in 1hour", checkout, at_server)
        assert code == 0, output
        assert f"deployment '{'detr-pipeline' if 'pipeline' in name else 'studies'}/{name.split('/')[-1]}'" in output
        assert "'profile': 'smoke'" in output

    # A name that no deployment has is Prefect's to refuse, and other commands are as ever.
    code, output = prefect("deployment run detr-nothing", checkout, at_server)
    assert code == 1
    assert "Invalid deployment name format: detr-nothing" in output
    code, output = prefect("work-pool ls", checkout, at_server)
    assert code == 0
    assert re.search(r"detr .*process", output)
    assert "plugin" not in output.lower()

    # A second one says what to do about the port.
    command = [sys.executable, "-m", "flows.serve", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    second = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: port {ports[0]} for Prefect can't be used: Address already in use; stop the program")

    # Loopback only; and nothing is left.
    family = [serving_process := psutil.Process(serving.pid), *serving_process.children(recursive=True)]
    for process in family:
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"
    serving.send_signal(signal.SIGINT)
    assert serving.wait(60) == 0
    assert psutil.wait_procs(family, timeout=10)[1] == []


def test_without_a_server_the_line_says_how_to_start_one(checkout: Path, environment: dict[str, str]) -> None:
    code, output = prefect("deployment run detr-ablations", checkout, environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert code == 1
    assert "no Prefect server answers at http://127.0.0.1:9/api; `make serve` starts one" in output
