"""`make serve`: the Prefect server, a worker that runs its deployments, and the MLflow UI, on loopback only, until ctrl-c."""

from __future__ import annotations

import argparse
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

import psutil

from flows import pages, tracking_address
from flows.attached import attached, stop
from flows.paths import ROOT, STATE, relative
from flows.server import HOST, ServerError, address, start_server, wait_until_answers

POOL = "detr"  # the work pool of prefect.yaml
LOGS = STATE / "log"
MLFLOW_SECONDS = 120.0


def main() -> None:
    """Serves until ctrl-c or SIGTERM. Exits with 1 and one line when a port is taken, or one of the three can't start or ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        serve(arguments.prefect_port, arguments.mlflow_port)
    except KeyboardInterrupt:
        print("stopped")
    except ServerError as error:
        sys.exit(f"error: {error}")


def serve(prefect_port: int, mlflow_port: int) -> None:
    """Starts all three, prints where they answer, and watches them. Raises ServerError; none of them is left either way."""
    elsewhere = tracking_address.server()  # an MLflow server, which shows its records itself
    for name, port in {"Prefect": prefect_port, **({} if elsewhere else {"MLflow": mlflow_port})}.items():
        _require_free(name, port)
    if elsewhere is None:
        os.environ[pages.SERVED] = f"http://{HOST}:{mlflow_port}"  # the worker's runs link to it
    url = os.environ["PREFECT_API_URL"] = address(prefect_port)  # for all that is started below
    with contextlib.ExitStack() as stack:
        server = start_server(prefect_port, LOGS / "serve-prefect.log", {})
        stack.callback(stop, server, patience=5)
        print("starting the Prefect server, a worker and the MLflow UI ...", flush=True)
        mlflow = None if elsewhere else _start_mlflow(mlflow_port)
        if mlflow is not None:
            stack.callback(stop, mlflow, patience=5)
        wait_until_answers(url, server, LOGS / "serve-prefect.log")
        _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
        worker = _start_worker()
        stack.callback(_stop_worker, worker)
        _prefect("deploy", "--all")
        if mlflow is not None:
            _wait_for_mlflow(mlflow_port, mlflow)
        print(f"Prefect  http://{HOST}:{prefect_port}")
        print(f"MLflow   {elsewhere or f'http://{HOST}:{mlflow_port}'}")
        print("run      prefect deployment run detr-ablations      (or detr-pipeline; -p profile=coco for another profile)")
        if prefect_port != 4200:
            print(f"         with PREFECT_API_URL={url} set")
        print(f"logs     {relative(LOGS)}/serve-*.log")
        print("stop     ctrl-c", flush=True)
        parts = {"the Prefect server": server, "the worker": worker, **({} if mlflow is None else {"the MLflow UI": mlflow})}
        while True:
            time.sleep(1)
            for name, process in parts.items():
                if process.poll() is not None:
                    raise ServerError(f"{name} ended (exit code {process.returncode}); logs are in {relative(LOGS)}/serve-*.log")


def _require_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            option = f"--{name.lower()}-port"
            raise ServerError(
                f"port {port} for {name} can't be had: {error.strerror}; stop what uses it (another `make serve`?), "
                f"or run `.venv/bin/python -m flows.serve {option} {port + 1}`"
            ) from None


def _start_mlflow(port: int) -> subprocess.Popen[bytes]:
    from flows import tracking  # imports MLflow, while the Prefect server starts

    try:
        tracking.prepare("Default")  # the database, which two that make it at once would break
    except tracking.TrackingError as error:
        raise ServerError(str(error)) from None
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # half the time to start
        # Not an argument: everybody on the machine can read those, and the address of a database may hold a password.
        "MLFLOW_BACKEND_STORE_URI": tracking.tracking_uri(),
    }
    arguments = ("--host", HOST, "--port", str(port), "--workers", "1")
    return _start(attached("mlflow", "ui", *arguments), LOGS / "serve-mlflow.log", settings)


def _start_worker() -> subprocess.Popen[bytes]:
    return _start(attached("prefect", "worker", "start", "--pool", POOL, "--name", "serve"), LOGS / "serve-worker.log", {})


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
            start_new_session=True,  # ctrl-c is for us, who stop them in order
        )


def _stop_worker(worker: subprocess.Popen[bytes]) -> None:
    """Stops the worker and the runs it has started, which would go on without it."""
    runs = []
    with contextlib.suppress(psutil.NoSuchProcess):
        runs = psutil.Process(worker.pid).children(recursive=True)
    stop(worker, patience=15)
    for run in runs:
        with contextlib.suppress(psutil.NoSuchProcess):
            run.kill()


def _prefect(*arguments: str) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServerError(f"`prefect {' '.join(arguments)}` failed: {' '.join((done.stdout + done.stderr).split())[-500:]}")


def _wait_for_mlflow(port: int, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + MLFLOW_SECONDS
    while True:
        try:
            opener.open(f"http://{HOST}:{port}/health", timeout=5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"the MLflow UI didn't start; its log is {relative(LOGS / 'serve-mlflow.log')}") from None
            time.sleep(0.5)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
