"""The Prefect server that flows report to: one that answers, else one of our own for as long as somebody needs it.

A stage started by hand needs it until it ends, the stages of one `dvc repro` until dvc ends: each such owner is a file in
OWNERS. A supervisor (this file, run as a module) starts the server and stops it when the last owner has ended, however it
ended. So a whole pipeline shares one server, two pipelines at once do too, and none is left behind.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from detr_core.errors import ExpectedError
from detr_core.redaction import without_credentials
from flows.attached import attached, stop
from flows.paths import MAIN, SHARED, relative

HOME = SHARED / "prefect"  # PREFECT_HOME: the database
OWNERS = SHARED / "server" / "owners"
ADDRESS = SHARED / "server" / "address"
LOG = SHARED / "log" / "prefect-server.log"
HOST = "127.0.0.1"
START_SECONDS = 120.0


class ServerError(ExpectedError, RuntimeError):
    """A server didn't start. The message names its log."""


def ensure_server() -> str:
    """The address of a Prefect server that answers, which PREFECT_API_URL then names for this process and those it starts.

    Raises ServerError where none answers and none can be started.
    """
    from prefect.settings import get_current_settings  # 2 s that the supervisor needn't pay

    url = os.environ.get("PREFECT_API_URL") or get_current_settings().api.url
    if url is None or not answers(url):
        if "PREFECT_API_URL" in os.environ:
            named = without_credentials(url or "")
            print(f"no Prefect server answers at {named} (PREFECT_API_URL): using one of the project's own", file=sys.stderr)
        with _lock():
            _register(_owner())
            url = _running() or _start()
    os.environ["PREFECT_API_URL"] = url
    return url


def answers(url: str) -> bool:
    """Whether a Prefect server answers at this address, such as http://127.0.0.1:4200/api."""
    # A proxy that the environment names is not for addresses of this machine, and others are asked as Prefect asks them.
    handlers = [urllib.request.ProxyHandler({})] if HOST in url else []
    try:
        with urllib.request.build_opener(*handlers).open(f"{url.rstrip('/')}/health", timeout=5) as answer:
            return bool(json.load(answer) is True)
    except (OSError, ValueError):
        return False


def wait_until_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for a server that was just started. Raises ServerError when it ended or took longer than START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while not answers(url):
        if process.poll() is not None:
            raise ServerError(f"the Prefect server ended as it started; its log is {relative(log)}")
        if time.monotonic() > deadline:
            raise ServerError(f"the Prefect server didn't answer at {url} in {START_SECONDS:.0f} s; its log is {relative(log)}")
        time.sleep(0.2)


def start_server(port: int, log: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """A Prefect server on loopback that ends with this process. settings: further environment of it."""
    HOME.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PREFECT_HOME": str(HOME), "PREFECT_API_URL": address(port)} | settings
    with log.open("w") as stream:
        # A session of its own: ctrl-c in the terminal is for whoever started it, who then stops it in order.
        return subprocess.Popen(
            attached("prefect", "server", "start", "--host", HOST, "--port", str(port)),
            cwd=MAIN,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def address(port: int) -> str:
    """The API's address at a port of this machine."""
    return f"http://{HOST}:{port}/api"


def supervise(port: int) -> None:
    """Runs the server at `port` until it ends or the last owner has ended."""
    # No scheduler: deployments run on the server of `make serve`, whose database this one shares.
    server = start_server(port, LOG, {"PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false"})
    try:
        ADDRESS.write_text(address(port))
        while server.poll() is None:
            time.sleep(1)
            if not _owners():
                with _lock():  # nobody becomes an owner while we make sure
                    if not _owners():
                        ADDRESS.unlink(missing_ok=True)
                        return
    finally:
        stop(server, patience=5)


def _running() -> str | None:
    url = ADDRESS.read_text() if ADDRESS.exists() else ""
    return url if url and answers(url) else None


def _start() -> str:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    ADDRESS.unlink(missing_ok=True)
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "flows.server", str(port)],
        cwd=MAIN,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until_answers(address(port), supervisor, LOG)
    return address(port)


def _owner() -> psutil.Process:
    """Whose end is the end of the need: the dvc that runs us as its stage (the outermost one), else this process."""
    process = psutil.Process()
    while "DVC_STAGE" in process.environ():
        parent = process.parent()
        if parent is None:
            break
        process = parent
    return process


def _register(owner: psutil.Process) -> None:
    OWNERS.mkdir(parents=True, exist_ok=True)
    (OWNERS / str(owner.pid)).write_text(str(owner.create_time()))


def _owners() -> list[Path]:
    """The owners that live; files of those that don't are removed."""
    alive = []
    for file in OWNERS.glob("*"):
        try:
            process = psutil.Process(int(file.name))
            # The start tells it from a later process of the same number.
            lives = str(process.create_time()) == file.read_text() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            lives = False
        if lives:
            alive.append(file)
        else:
            file.unlink(missing_ok=True)
    return alive


@contextmanager
def _lock() -> Iterator[None]:
    OWNERS.mkdir(parents=True, exist_ok=True)
    with (OWNERS.parent / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    supervise(int(sys.argv[1]))
