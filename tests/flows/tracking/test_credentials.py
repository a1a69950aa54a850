"""Credentials in addresses stay out of everything that is shown or stored."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from detr_core.config import ConfigError
from detr_core.errors import ExpectedError
from detr_core.redaction import without_credentials
from flows.profile.settings import profile_from
from flows.tracking import recorder, tracking_address, ui_addresses
from tests.conftest import tiny_parameters
from tests.flows.conftest import Command, committed
from tests.flows.tracking.guarded_mlflow import ENCODED, PASSWORD, guarded_mlflow

SECRETS = [PASSWORD, ENCODED, PASSWORD.replace("ö", "\\u00f6"), "zq7Geheim"]  # the last is a part of all of them


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("http://user:secret@host:5000/a", "http://host:5000/a"),
        ("http://user:se%40cret@host", "http://host"),
        ("http://user:s@cret@host/", "http://host/"),
        ("postgresql+psycopg2://user:sec/r?e#t@host/db", "postgresql+psycopg2://host/db"),
        ("https://ghp_token@github.com/a/b.git", "https://github.com/a/b.git"),
        ("ssh://git@github.com/a/b.git", "ssh://git@github.com/a/b.git"),
        ("ssh://git:secret@github.com/a", "ssh://git@github.com/a"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("https://host/a.pt?X-Amz-Signature=ab12&part=2", "https://host/a.pt?X-Amz-Signature=***&part=2"),
        ("https://host/a?sv=1&sig=a%2Fb", "https://host/a?sv=1&sig=***"),
        ("url: /api/runs?access_token=abc (Caused by x)", "url: /api/runs?access_token=*** (Caused by x)"),
        ("two: 'http://a:b@c' and \"http://d:e@f/g\"", "two: 'http://c' and \"http://f/g\""),
        ("http://127.0.0.1:5000/#/experiments/1, mail a@b.org", "http://127.0.0.1:5000/#/experiments/1, mail a@b.org"),
        ('{"uri": "http://host:5000","mail":"a@b"}', '{"uri": "http://host:5000","mail":"a@b"}'),
        ("http://[::1]:5000/x@y", "http://[::1]:5000/x@y"),
        ("sqlite:////data/with@at/mlflow.db", "sqlite:////data/with@at/mlflow.db"),
        ("https://host/model@2?key_point=1&page=3", "https://host/model@2?key_point=1&page=3"),
    ],
)
def test_credentials_are_removed_from_an_address(text: str, left: str) -> None:
    assert without_credentials(text) == left
    assert without_credentials(left) == left
    assert str(ExpectedError(text)) == left


@given(password=st.text(st.characters(codec="utf-8", exclude_characters="@\"'<>", exclude_categories=["Z", "C"]), min_size=1))
@example(password="//")
def test_no_password_of_a_database_is_left(password: str) -> None:
    if password[0].isdigit():
        return  # it may be a port
    assert without_credentials(f"mysql://user:{password}@host/db") == "mysql://host/db"


def test_a_profile_with_credentials_is_refused() -> None:
    content = tiny_parameters()
    init = {"checkpoint": "https://host/a.pt?token=zq7Geheim", "sha256": "0" * 64}
    content["train_detection"]["init"] = init
    with pytest.raises(
        ConfigError, match=r"tiny\.yaml: train_detection\.init\.checkpoint: expected an address without"
    ) as raised:
        profile_from(content, content.pop("studies"), "tiny.yaml")
    assert "zq7Geheim" not in str(raised.value)


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the variables of the user and password after the test."""
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_the_address_of_a_server_goes_without_its_password(login: None, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"MLFLOW_TRACKING_URI": f"https://me%40home:{ENCODED}@host:5000/mlflow"}
    tracking_address.separate_credentials(environment)
    assert environment == {
        "MLFLOW_TRACKING_URI": "https://host:5000/mlflow",
        "MLFLOW_TRACKING_USERNAME": "me@home",
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{ENCODED}@127.0.0.1:9/")
    assert ui_addresses.to_open(ui_addresses.run_page("7", "1")) == "http://127.0.0.1:9/#/experiments/1/runs/7"
    with pytest.raises(recorder.TrackingError, match=r"^MLflow at http://127\.0\.0\.1:9/: no server answers"):
        recorder.prepare("detr demo")
    recorder.mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"nosuch://me:{ENCODED}@127.0.0.1:9/db")
    with pytest.raises(recorder.TrackingError) as raised:
        recorder.prepare("detr demo")
    recorder.mlflow.set_tracking_uri(None)
    assert "MLflow at nosuch://127.0.0.1:9/db: " in str(raised.value)
    assert "zq7Geheim" not in str(raised.value)


def leaks(*folders: Path) -> list[Path]:
    """Returns the files below a folder, databases included, that contain the password in one of its forms."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and ".venv" not in file.parts]
    assert len(files) > 50
    return [file for file in files if any(secret.encode() in (file.read_bytes()) for secret in SECRETS)]


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Yields a list of the command lines of this process's descendants that contain the password while the block runs."""
    texts: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    line = " ".join(process.cmdline())
                    texts.extend([line] if any(secret in line for secret in SECRETS) else [])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield texts
    finally:
        over.set()
        thread.join()


@pytest.mark.timeout(600)
def test_a_stage_leaves_the_password_nowhere(
    smoke: Path, server: dict[str, str], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = committed(tmp_path / "project")
    with guarded_mlflow(tmp_path, monkeypatch) as address, watched() as lines:
        output = command(project, "flows.data", "--profile", "smoke", MLFLOW_TRACKING_URI=address, **server)
    assert "zq7Geheim" not in output
    assert lines == []
    assert (tmp_path / "mlflow.db").stat().st_size > 0, "the server let the stage in"
    assert any((tmp_path / "artifacts").rglob("dataset.json"))
    assert leaks(tmp_path, smoke / ".state") == []


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_whole_pipeline_leaves_the_password_nowhere(
    command: Command, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = committed(tmp_path / "project")
    nowhere = environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    with guarded_mlflow(tmp_path, monkeypatch) as address, watched() as lines:
        output = command(project, "flows.pipeline", "--profile", "smoke", MLFLOW_TRACKING_URI=address)
        profile = project / "params/smoke.yaml"
        content = yaml.safe_load(profile.read_text())
        content["train_detection"]["optimizer"]["lr"] = 1e30  # a stage that fails, with an error that is stored
        profile.write_text(yaml.safe_dump(content))
        failed = subprocess.run(
            [sys.executable, "-m", "flows.train_detection", "--profile", "smoke"],
            cwd=project,
            env=nowhere | {"MLFLOW_TRACKING_URI": address},
            capture_output=True,
            text=True,
            check=False,
        )
    gone = subprocess.run(  # and one without the server
        [sys.executable, "-m", "flows.check", "--profile", "smoke"],
        cwd=project,
        env=nowhere | {"MLFLOW_TRACKING_URI": address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert gone.returncode == 1
    assert "no server answers" in gone.stderr
    assert "zq7Geheim" not in output + failed.stdout + failed.stderr + gone.stdout + gone.stderr
    assert lines == []
    page = (project / "reports/smoke/index.html").read_text()
    assert f"http://{address.rpartition('@')[2]}/#/experiments/" in page
    assert leaks(tmp_path) == []
