"""Finds or starts the Prefect server of a flow: the configured server if it answers, else the project's own server.

A stage that a user starts needs the project's own server until the stage ends, and the stages of one `dvc repro` need it until
dvc ends (see owners.py). A supervisor (this file, run as a module) starts the server, restarts it at the same address if it ends
while an owner is alive, and stops it when the last owner has ended, for whatever reason. So all stages of a pipeline, and several
pipelines at the same time, share one server, and no server keeps running after them. If the server is killed, a training
continues, and reports to the restarted server.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from detr_core.atomic import write_text
from detr_core.redaction import without_credentials
from flows.profile.paths import MAIN, SHARED
from flows.runtime import owners, processes
from flows.runtime.child_process import command_ending_with_parent, stop
from flows.runtime.starting import wait_until_ready

HOME = SHARED / "prefect"  # the value of PREFECT_HOME, where Prefect's database is
ADDRESS = SHARED / "server" / "address"
SUPERVISOR = SHARED / "server" / "supervisor"  # the file with the identity of the supervisor's process
LOG = SHARED / "log" / "prefect-server.log"
HOST = "127.0.0.1"
NAME = "the Prefect server"
STARTS = 5  # how many restarts in succession may fail before the supervisor gives up
SECONDS_OF_RESTART = 60.0


def ensure_server() -> str:
    """Returns the address of a Prefect server that answers, and sets PREFECT_API_URL to it for this and its child processes.

    Raises ServerError if no server answers and none can be started.
    """
    from prefect.settings import get_current_settings  # this takes 2 s, and the supervisor does not need it

    url = os.environ.get("PREFECT_API_URL") or get_current_settings().api.url
    if url is None or not answers(url):
        if "PREFECT_API_URL" in os.environ:
            address = without_credentials(url or "")
            print(f"no Prefect server answers at {address} (PREFECT_API_URL): using the project's own server", file=sys.stderr)
        with owners.lock():
            owners.register()
            url = _running() or _start()
    elif url == own_address():
        with owners.lock():
            owners.register()  # the process that started the server may end before this one
    os.environ["PREFECT_API_URL"] = url
    return url


def answers(url: str) -> bool:
    """Returns whether a Prefect server answers at this address, such as http://127.0.0.1:4200/api."""
    # A proxy in the environment is used only for addresses of other machines, as Prefect does.
    handlers = [urllib.request.ProxyHandler({})] if HOST in url else []
    try:
        with urllib.request.build_opener(*handlers).open(f"{url.rstrip('/')}/health", timeout=5) as answer:
            return bool(json.load(answer) is True)
    except (OSError, ValueError):
        return False


def came_back(url: str) -> bool:
    """Returns whether a server answers at this address; waits while the supervisor restarts the project's own server."""
    deadline = time.monotonic() + SECONDS_OF_RESTART
    while not answers(url):
        if url != own_address() or not _supervised() or time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def start_server(port: int, log: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts a Prefect server, which ends with this process, on the loopback address. settings: its environment variables."""
    HOME.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PREFECT_HOME": str(HOME), "PREFECT_API_URL": address(port)} | settings
    with log.open("a") as stream:
        # In a session of its own the server does not receive ctrl-c: the process that started it stops it in order.
        return subprocess.Popen(
            command_ending_with_parent("prefect", "server", "start", "--host", HOST, "--port", str(port)),
            cwd=MAIN,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def address(port: int) -> str:
    """Returns the address of Prefect's API at a port of this machine."""
    return f"http://{HOST}:{port}/api"


def supervise(port: int) -> None:
    """Keeps a Prefect server running at `port` until the last owner has ended, or the server can't be restarted."""
    write_text(SUPERVISOR, processes.identity())
    LOG.unlink(missing_ok=True)
    server = _start_own(port)
    tries_left = 0  # restarts are tried only after a first success, so that a server that can't start fails at once
    try:
        write_text(ADDRESS, address(port))
        while True:
            time.sleep(0.5)
            if server.poll() is not None:
                if tries_left == 0:
                    return
                tries_left -= 1
                server = _start_own(port)
            elif tries_left < STARTS and answers(address(port)):
                tries_left = STARTS
            if not owners.exist():
                with owners.lock():  # under the lock no process can become an owner before the server is stopped
                    if not owners.exist():
                        ADDRESS.unlink(missing_ok=True)
                        return
    finally:
        stop(server, patience=2)


def _start_own(port: int) -> subprocess.Popen[bytes]:
    # The scheduler is off, because deployments run on the server of `make serve`, which uses the same database.
    return start_server(port, LOG, {"PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false"})


def own_address() -> str | None:
    """Returns the address of the server that this project has started for itself; None if it has started none."""
    return ADDRESS.read_text(encoding="utf-8") if ADDRESS.exists() else None


def _supervised() -> bool:
    return SUPERVISOR.exists() and processes.lives(SUPERVISOR.read_text(encoding="utf-8")) is True


def _running() -> str | None:
    """Returns the address of the project's own server once it answers; None if no supervisor starts one."""
    url = own_address()
    if url is None or answers(url):
        return url
    if not _supervised():
        return None
    wait_until_ready(NAME, lambda: answers(url), int(SUPERVISOR.read_text(encoding="utf-8").split("-")[1]), LOG)
    return url


def _start() -> str:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    ADDRESS.unlink(missing_ok=True)
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "flows.runtime.server", str(port)],
        cwd=MAIN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until_ready(NAME, lambda: answers(address(port)), supervisor.pid, LOG)
    return address(port)


if __name__ == "__main__":
    supervise(int(sys.argv[1]))
