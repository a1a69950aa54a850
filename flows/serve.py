"""Runs the servers of `make serve` until ctrl-c: a Prefect server, a Prefect worker and the MLflow UI, on loopback only."""

from __future__ import annotations

from flows.runtime import arguments as command_line
from flows.tracking.tracking_address import tracking_uri

if __name__ == "__main__":
    command_line.check()  # before the imports below, which take seconds

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import FrameType

from flows.profile.paths import ROOT, STATE, relative
from flows.runtime import guard
from flows.runtime.child_process import guarded, stop
from flows.runtime.server import HOST, address, answers, start_server
from flows.runtime.starting import ServerError, wait_until_ready
from flows.tracking import dead_runs, tracking_address, ui_addresses

POOL = "detr"  # the work pool of prefect.yaml
LOGS = STATE / "log"
SECONDS_FOR_A_PORT = 5.0  # a server of an earlier `make serve` that was killed may hold its port for a few seconds


def main() -> None:
    """Runs the servers until ctrl-c or SIGTERM. Exits with 1 and one line if a port is in use, or if one can't start or ends."""
    arguments = command_line.parser("serve").parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        serve(arguments.prefect_port, arguments.mlflow_port)
    except KeyboardInterrupt:
        print("stopped")
    except ServerError as error:
        sys.exit(f"error: {error}")


def serve(prefect_port: int, mlflow_port: int) -> None:
    """Starts the Prefect server, the Prefect worker and the MLflow UI, prints their addresses, and watches them.

    When this function ends, for whatever reason, all these processes and the runs that the Prefect worker has started have ended.
    If one of them is killed, its child processes become children of this process, which ends them. Raises ServerError.
    """
    guard.inherit_orphans()
    mlflow_server = tracking_address.server()  # an MLflow server has a UI of its own
    for name, port in {"Prefect": prefect_port, **({} if mlflow_server else {"MLflow": mlflow_port})}.items():
        _require_free(name, port)
    if mlflow_server is None:
        os.environ[ui_addresses.SERVED] = f"http://{HOST}:{mlflow_port}"  # runs of the Prefect worker print links to it
    url = os.environ["PREFECT_API_URL"] = address(prefect_port)  # all processes that are started below use this server
    with contextlib.ExitStack() as stack:
        stack.callback(guard.end_descendants, patience=1)  # this callback runs last
        log = LOGS / "serve-prefect.log"
        log.unlink(missing_ok=True)
        server = start_server(prefect_port, log, {})
        stack.callback(stop, server, patience=5)
        print("starting the Prefect server, a Prefect worker and the MLflow UI ...", flush=True)
        mlflow = None if mlflow_server else _start_mlflow(mlflow_port)
        if mlflow is not None:
            stack.callback(stop, mlflow, patience=guard.SECONDS + 2)
        wait_until_ready("the Prefect server", lambda: answers(url), server.pid, log)
        dead_runs.mark_in_prefect(url)
        _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
        worker = _start_worker()
        stack.callback(stop, worker, patience=guard.SECONDS + 2)
        if mlflow is not None:
            stack.callback(mlflow.terminate)  # the MLflow UI then ends while the Prefect worker is stopped
        _prefect("deploy", "--all")
        if mlflow is not None:
            wait_until_ready("the MLflow UI", lambda: _mlflow_answers(mlflow_port), mlflow.pid, LOGS / "serve-mlflow.log")
        print(f"Prefect  http://{HOST}:{prefect_port}")
        print(f"MLflow   {mlflow_server or f'http://{HOST}:{mlflow_port}'}")
        print("run      prefect deployment run detr-ablations      (or detr-pipeline; -p profile=coco for another profile)")
        if prefect_port != 4200:
            print(f"         with PREFECT_API_URL={url} set")
        print(f"logs     {relative(LOGS)}/serve-*.log")
        print("stop     ctrl-c", flush=True)
        parts = {
            "the Prefect server": server,
            "the Prefect worker": worker,
            **({} if mlflow is None else {"the MLflow UI": mlflow}),
        }
        while True:
            time.sleep(1)
            for name, process in parts.items():
                if process.poll() is not None:
                    raise ServerError(f"{name} ended (exit code {process.returncode}); logs are in {relative(LOGS)}/serve-*.log")


def _require_free(name: str, port: int) -> None:
    deadline = time.monotonic() + SECONDS_FOR_A_PORT
    while (problem := _problem(port)) is not None:
        if time.monotonic() > deadline:
            option = f"--{name.lower()}-port"
            raise ServerError(
                f"port {port} for {name} can't be used: {problem}; stop the program that uses it (another `make serve`?), "
                f"or run `.venv/bin/python -m flows.serve {option} {port + 1}`"
            )
        time.sleep(0.2)


def _problem(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.strerror
    return None


def _start_mlflow(port: int) -> subprocess.Popen[bytes]:
    from flows.tracking import recorder  # this imports MLflow, which takes seconds, while the Prefect server starts

    try:
        recorder.prepare("Default")  # this creates the database, which two processes must not do at the same time
        recorder.mark_dead_runs()
    except recorder.TrackingError as error:
        raise ServerError(str(error)) from None
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # this halves the time to start
        # The address of a database may hold a password, and all users of the machine can read a process's arguments.
        "MLFLOW_BACKEND_STORE_URI": tracking_uri(),
    }
    arguments = ("--host", HOST, "--port", str(port), "--workers", "1")
    return _start(guarded("mlflow", "ui", *arguments), LOGS / "serve-mlflow.log", settings)


def _start_worker() -> subprocess.Popen[bytes]:
    return _start(guarded("prefect", "worker", "start", "--pool", POOL, "--name", "serve"), LOGS / "serve-worker.log", {})


def _start(command: list[str], log: Path, settings: dict[str, str]) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that ctrl-c reaches only this process, which then stops the others in order
        )


def _prefect(*arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        raise ServerError(f"`prefect {' '.join(arguments)}` failed: {' '.join((process.stdout + process.stderr).split())[-500:]}")


def _mlflow_answers(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"http://{HOST}:{port}/health", timeout=5).close()
    except OSError:
        return False
    return True


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
