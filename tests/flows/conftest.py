"""Fixtures that copy the checkout or the results of the tiny profile, so that tests can change them, and write checkpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from flows.profile import paths, settings
from flows.profile.paths import ROOT, Paths
from flows.runtime import processes
from flows.tracking import recorder
from tests.adopting import write_recipe
from tests.conftest import Trained, copy_data


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a git repository with the project's files as they are now, committed and without any results."""
    return committed(tmp_path_factory.mktemp("checkout"))


def committed(folder: Path) -> Path:
    """Makes `folder` a git repository with the project's files as they are now, committed and without any results."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        if name.startswith(("detr_core/", "flows/", "params/", ".dvc")) or ("/" not in name and (ROOT / name).is_file()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for lock in folder.rglob("dvc.lock"):
        lock.unlink()
    git(folder, "init", "-q")
    _name_author(folder)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "as it is")
    return folder


def _name_author(folder: Path) -> None:
    for setting in ("user.name", "user.email"):
        git(folder, "config", setting, "test@localhost")


def git(folder: Path, *arguments: str) -> str:
    """Runs git in a folder and returns what it prints."""
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


Command = Callable[..., str]


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Command:
    """Returns a function that runs `python -m MODULE ARGUMENT...` in a folder and returns what it prints.

    The command must succeed. It has no Prefect server, unless a further variable of its environment names one.
    """
    nowhere = environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}

    def run(folder: Path, *module: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *module], cwd=folder, env=nowhere | more, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, worker_id: str, command: Command) -> Iterator[Path]:
    """Returns a checkout in which the whole smoke profile has run, once for all tests, and in which its dvc.lock is committed.

    Tests only read it; a test that changes something changes a `clone` of it. The processes that run the tests share it, and the
    second one waits until the first one has built it. Its Prefect server runs as long as one of them does.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    project, complete = shared / "smoke", shared / "smoke is complete"
    with FileLock(shared / "smoke.lock"):
        if not complete.exists():
            shutil.rmtree(project, ignore_errors=True)  # of a process that failed to build it
            project.mkdir()
            owner = _own_server(committed(project))
            command(project, "flows.pipeline", "--profile", "smoke")
            git(project, "add", "params/smoke/dvc.lock")
            git(project, "commit", "-qm", "the smoke profile, carried out")
            complete.touch()
        else:
            owner = _own_server(project)
    yield project
    owner.unlink()


def _own_server(project: Path) -> Path:
    """Makes this process an owner of the project's Prefect server, until the file that is returned is removed."""
    owner = project / ".state/server/owners" / str(os.getpid())  # as flows/runtime/owners.py has them
    owner.parent.mkdir(parents=True, exist_ok=True)
    owner.write_text(processes.identity())
    return owner


@pytest.fixture
def clone(smoke: Path, tmp_path: Path) -> Path:
    """Returns a git clone of `smoke` with the same DVC cache; it has no results until `dvc checkout` brings them."""
    cloned = cloned_from(smoke, tmp_path / "clone")
    (cloned / ".dvc/config.local").write_text(f"[cache]\n    dir = {smoke / '.dvc/cache'}\n")
    return cloned


def cloned_from(project: Path, folder: Path) -> Path:
    """Returns a git clone of a project, with an author for commits."""
    git(project, "clone", "-q", str(project), str(folder))
    _name_author(folder)
    return folder


@pytest.fixture
def server(smoke: Path) -> dict[str, str]:
    """Returns the variable that names the Prefect server of `smoke`, because starting another one takes seconds."""
    return {"PREFECT_API_URL": (smoke / ".state/server/address").read_text()}


@pytest.fixture(scope="session")
def empty_record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a database of MLflow without any run, which tests copy, because making one takes seconds."""
    path = tmp_path_factory.mktemp("record") / "mlflow.db"
    recorder.mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns a copy of the empty database, which is this process's record of runs during the test."""
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_record, path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    yield path
    recorder.mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Returns the environment for commands in a checkout: this Python's, without variables of Prefect, MLflow and DVC."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "DVC_"))}
    return own | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def tiny_copy(trained: Trained) -> Paths:
    """Returns the paths of a copy of the tiny profile's data and trained models, without evaluations, which tests may damage."""
    import torch  # seconds, only where it is asked for

    where = Paths("tiny-copy")
    shutil.rmtree(where.runs, ignore_errors=True)
    shutil.copytree(trained.paths.runs, where.runs)
    copy_data(trained.paths, where)
    shutil.rmtree(where.evaluation)
    shutil.rmtree(where.runs / "studies")
    for folder in (where.detection, where.panoptic):
        content = torch.load(folder / "checkpoint.pt", weights_only=True)
        content["meta"]["profile"] = where.profile
        torch.save(content, folder / "checkpoint.pt")
    return where


@pytest.fixture(scope="module")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of a small detector in the published format, whose scores are near 0 or 1."""
    from tests.published_checkpoints import write_published  # torch takes seconds

    return write_published(tmp_path_factory.mktemp("published") / "detector.pth", mask_head=False)


@pytest.fixture(scope="module")
def published_panoptic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the file of a small detector with a mask head in the published format."""
    from tests.published_checkpoints import write_published  # torch takes seconds

    return write_published(tmp_path_factory.mktemp("published") / "panoptic.pth", mask_head=True)


@pytest.fixture
def params(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder for new profiles, with a copy of the profiles of this project and the recipe of `write_recipe`."""
    folder = tmp_path / "params"
    shutil.copytree(paths.PARAMS, folder)
    write_recipe(folder)
    for module in (paths, settings):
        monkeypatch.setattr(module, "PARAMS", folder)
    return folder
