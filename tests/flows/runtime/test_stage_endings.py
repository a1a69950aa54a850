"""The end of a stage's command by a signal or after the loss of the Prefect server, and the time limit of a server's start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_UI_URL

from flows.runtime import server, stage_runner, starting
from flows.runtime.one_line_errors import one_line_errors
from flows.runtime.starting import ServerError, wait_until_ready

NOWHERE = "http://127.0.0.1:9/api"


class LosesItsServer:
    """A flow whose server goes away before its function is called, or before its result is reported."""

    def __init__(self, before: bool, function: Any) -> None:
        self.before, self.fn = before, function

    def __call__(self, **parameters: Any) -> None:
        if self.before:
            raise httpx.ConnectError("All connection attempts failed")
        self.fn(**parameters)
        raise httpx.ConnectError("All connection attempts failed")


def works(profile: str) -> None: ...


def fails(profile: str) -> None:
    raise ValueError("out of luck")


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the handler of SIGTERM after each test."""
    monkeypatch.setattr(stage_runner, "_ending", False)
    monkeypatch.setattr("logging.raiseExceptions", True)
    earlier = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, earlier)


def test_work_that_is_complete_is_a_success_without_a_server_too(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    stage_runner._carry_out(LosesItsServer(False, works), NOWHERE, {"profile": "tiny"})  # type: ignore[arg-type]
    assert time.monotonic() - began < 10
    assert [record.getMessage() for record in caplog.records if record.name == "flows.runtime.stage_runner"] == [
        f"the work is complete, but no Prefect server answers at {NOWHERE}: the page of this run is not updated"
    ]


def test_work_that_could_not_begin_without_its_server_is_one_line() -> None:
    with pytest.raises(ServerError, match="stopped answering before the work was complete"):
        stage_runner._carry_out(LosesItsServer(True, works), NOWHERE, {"profile": "tiny"})  # type: ignore[arg-type]


def test_an_error_of_the_work_stays_that_error() -> None:
    with pytest.raises(ValueError, match="out of luck"):
        stage_runner._carry_out(LosesItsServer(False, fails), NOWHERE, {"profile": "tiny"})  # type: ignore[arg-type]


def test_sigterm_unwinds_the_work_once_and_ends_with_143() -> None:
    tidied = []

    def work() -> None:
        stage_runner._take_signals()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one doesn't disturb this
            time.sleep(0.1)
            tidied.append(True)

    with pytest.raises(SystemExit) as ending, one_line_errors(), stage_runner._ended_by_signals():
        work()
    assert ending.value.code == 143
    assert tidied == [True]


def test_a_slow_start_is_awaited_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(starting, "WITHOUT_PROGRESS", 1.5)
    monkeypatch.setattr(starting, "SECONDS_BETWEEN_MESSAGES", 0.5)
    log = tmp_path / "log"
    writing = "import sys, time\nfor _ in range(100): print('.', flush=True); time.sleep(0.1)"
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-c", writing], stdout=stream)
    while log.stat().st_size == 0:
        time.sleep(0.01)
    began = time.monotonic()
    wait_until_ready("the server", lambda: time.monotonic() - began > 2, process.pid, log)
    process.kill()
    process.wait()
    assert "waiting for the server to start (1 s so far)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "error"), [("import time; time.sleep(100)", "expected an answer from"), ("", "found that its process has ended")]
)
def test_a_start_without_progress_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: str) -> None:
    monkeypatch.setattr(starting, "WITHOUT_PROGRESS", 1.5)
    process = subprocess.Popen([sys.executable, "-c", code])
    with pytest.raises(ServerError, match=error):
        wait_until_ready("the server", lambda: False, process.pid, tmp_path / "log")
    process.kill()
    process.wait()


class LosesItsServerOnce:
    """A flow whose server is away at the first try, before its function is called."""

    tries = 0

    def __init__(self, function: Any) -> None:
        self.fn = function

    def __call__(self, **parameters: Any) -> None:
        LosesItsServerOnce.tries += 1
        if LosesItsServerOnce.tries == 1:
            raise httpx.ConnectError("All connection attempts failed")
        self.fn(**parameters)


def test_a_server_that_is_lost_before_the_work_and_returns_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_runner, "came_back", lambda _url: True)
    worked: list[str] = []

    def work(profile: str) -> None:
        worked.append(profile)

    stage_runner._carry_out(LosesItsServerOnce(work), NOWHERE, {"profile": "tiny"})  # type: ignore[arg-type]
    assert worked == ["tiny"]


def test_the_log_names_pages_that_last_and_the_own_server_gets_no_heartbeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ADDRESS", tmp_path / "address")
    (tmp_path / "address").write_text("http://127.0.0.1:43853/api")
    own = stage_runner._prefect_settings("http://127.0.0.1:43853/api")
    assert own[PREFECT_UI_URL] == "http://127.0.0.1:4200", "the address of `make serve`, which shows the same runs"
    assert own[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] is None
    other = stage_runner._prefect_settings("http://prefect.example/api")
    assert not {PREFECT_UI_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY} & other.keys()
