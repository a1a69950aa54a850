"""DVC's commands: results shared through a remote, experiments and earlier states, with each byte stored once on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import boto3
import pytest
from dvc_objects.fs.system import reflink
from moto.server import ThreadedMotoServer

from detr_core import directories
from tests.flows.conftest import Command, cloned_from, git

GRAPH = "params/smoke/dvc.yaml"
RESULTS = ("data/smoke", "runs/smoke", "reports/smoke")
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yields the address of a server on this machine that speaks S3, with one empty bucket, `detr`."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    serving = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="detr")
    yield address
    serving.stop()


def contents(project: Path) -> dict[str, bytes]:
    """Returns the content of every file that the stages made in a project."""
    files = (file for folder in RESULTS for file in (project / folder).rglob("*") if file.is_file())
    return {file.relative_to(project).as_posix(): file.read_bytes() for file in files}


def links(folder: Path) -> bool:
    """Returns whether the inode shows that two names are links to one file: it does for hard links, and not for reflinks."""
    (folder / "one").write_text("1")
    try:
        reflink(str(folder / "one"), str(folder / "two"))
    except OSError:
        return True
    return False


@pytest.mark.timeout(900)
def test_a_colleague_pulls_data_models_and_report_and_runs_nothing(
    clone: Path, s3: str, tmp_path: Path, command: Command
) -> None:
    command(clone, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    command(clone, "dvc", "remote", "add", "s3", "s3://detr/results")
    command(clone, "dvc", "remote", "modify", "s3", "endpointurl", s3)
    git(clone, "commit", "-qam", "where results are pushed to")
    command(clone, "dvc", "checkout", "--quiet", GRAPH)
    results = contents(clone)
    assert {
        "runs/smoke/panoptic/checkpoint.pt",
        "runs/smoke/evaluation/metrics.json",
        "reports/smoke/index.html",
    } <= results.keys()
    colleague = cloned_from(clone, tmp_path / "colleague")
    for remote in ([], ["--remote", "s3"]):
        command(clone, "dvc", "push", *remote, GRAPH, **KEYS)
        for name in (*RESULTS, ".dvc/cache"):
            shutil.rmtree(colleague / name, ignore_errors=True)
        command(colleague, "dvc", "pull", *remote, GRAPH, **KEYS)
        assert contents(colleague) == results
    assert "Data and pipelines are up to date" in command(colleague, "dvc", "repro", GRAPH)
    assert git(colleague, "status", "--porcelain") == ""


@pytest.mark.timeout(900)
def test_experiments_change_only_their_results_and_earlier_states_are_restored(
    smoke: Path, clone: Path, server: dict[str, str], command: Command
) -> None:
    run = partial(command, clone, "dvc", **server)
    run("checkout", "--quiet", GRAPH)
    before = contents(clone)
    digests = re.compile(r"[0-9a-f]{30}(\.dir)?")  # other tests may be writing temporary files into the cache
    cache = [file for file in (smoke / ".dvc/cache/files/md5").rglob("*") if digests.fullmatch(file.name)]
    # In a copy of the checkout, by a worker of DVC's.
    change = ("-S", "params/smoke.yaml:report.pictures=1", GRAPH)
    run("exp", "run", "--queue", "--name", "queued", *change)
    run("queue", "start")
    until = time.monotonic() + 300
    while "queued" not in git(clone, "for-each-ref", "refs/exps"):
        assert time.monotonic() < until, run("queue", "status")
        time.sleep(0.5)
    with closing(sqlite3.connect(clone / ".state/mlflow/mlflow.db")) as database:
        assert database.execute("SELECT name, status FROM runs").fetchall() == [("report smoke", "FINISHED")], "in the one record"
    assert contents(clone) == before

    # In the checkout itself.
    run("exp", "run", "--name", "here", *change)
    changed = {f"reports/smoke/{name}" for name in ("index.html", directories.MARK)}
    assert {name for name, content in contents(clone).items() if before.get(name) != content} == changed
    listing = json.loads(run("exp", "show", "--json"))
    assert {experiment["name"] for commit in listing for experiment in commit["experiments"] or ()} == {"queued", "here"}

    # Back to what was.
    git(clone, "checkout", "-q", ".")
    run("checkout", "--quiet", GRAPH)
    assert contents(clone) == before

    # Nobody has written into what the workspace shares with the cache, and they do share it.
    for file in cache:
        assert hashlib.md5(file.read_bytes()).hexdigest() == file.parent.name + file.name.removesuffix(".dir")
    if links(clone):
        cached = {file.stat().st_ino for file in (smoke / ".dvc/cache").rglob("*")}
        apart = [name for name in before if os.stat(clone / name).st_ino not in cached and (clone / name).stat().st_size]
        assert apart == []


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_result_made_again_leaves_what_it_was_linked_to(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    cached, result = tmp_path / "cached", tmp_path / "result"
    cached.write_text("first")
    cached.chmod(0o444)
    result.mkdir()
    link(cached, result / "file")
    directories.mark(result)
    with directories.atomic_directory(result) as folder:
        (folder / "file").write_text("second")
    assert (result / "file").read_text() == "second"
    assert cached.read_text() == "first"
