"""The origin of a run that is recorded beside its lineage: changed code, and digests of its results."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from flows.profile.paths import Paths
from flows.tracking import lineage, snapshot
from tests.flows.conftest import git


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Returns a git repository with code, a binary file, a note and a dvc.lock, all committed."""
    for name, content in {"flows/a.py": "a = 1\n", "flows/b.bin": "\0\1", "note.txt": "one\n", "dvc.lock": "a\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "user.name", "test")
    git(tmp_path, "config", "user.email", "test@localhost")
    git(tmp_path, "config", "diff.mnemonicPrefix", "true")  # a setting that people have; the patch must not follow it
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_patch_brings_a_clone_to_the_same_code(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (repository / "flows/a.py").write_text("a = 2\n")
    (repository / "flows/b.bin").write_bytes(bytes(range(256)))
    (repository / "flows/new.py").write_text("new\n")
    (repository / "note.txt").unlink()
    (repository / "dvc.lock").write_text("b\n")
    (repository / "secret.env").write_text("key\n")
    before = git(repository, "status", "--porcelain")
    changes = snapshot.changes(repository)
    assert changes is not None
    assert (changes.others, changes.too_large) == (("secret.env",), ())
    assert b"key" not in changes.patch
    assert git(repository, "status", "--porcelain") == before, "git's own index is as it was"
    clone = tmp_path_factory.mktemp("clone") / "clone"
    git(repository, "clone", "-q", str(repository), str(clone))
    subprocess.run(["git", "apply"], cwd=clone, input=changes.patch, check=True)
    for name in ("flows/a.py", "flows/b.bin", "flows/new.py"):
        assert (clone / name).read_bytes() == (repository / name).read_bytes()
    assert not (clone / "note.txt").exists()
    assert (clone / "dvc.lock").read_text() == "a\n", "what DVC writes is no change of the code"


def test_without_changes_the_patch_is_empty_and_without_a_repository_there_is_none(repository: Path, tmp_path: Path) -> None:
    assert snapshot.changes(repository) == snapshot.Changes(b"", (), ())
    assert snapshot.changes(tmp_path.parent) is None


def test_large_new_code_is_named(repository: Path) -> None:
    (repository / "flows/weights.bin").write_bytes(b"0" * (snapshot.LARGEST_FILE + 1))
    assert snapshot.changes(repository) == snapshot.Changes(b"", (), ("flows/weights.bin",))


def test_settings_of_dvc_do_not_make_a_checkout_dirty(repository: Path) -> None:
    (repository / ".dvc").mkdir()
    (repository / ".dvc/config").write_text("[core]\n")
    assert lineage.git(repository)["git.dirty"] == "false"
    (repository / "flows/a.py").write_text("a = 2\n")
    assert lineage.git(repository)["git.dirty"] == "true"


def test_a_page_is_the_same_wherever_its_links_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "ROOT", tmp_path)
    page = tmp_path / "page.html"
    checksums = []
    for text in ('<a href="http://127.0.0.1:5000/#/runs/1">a</a>', '<a href="http://127.0.0.1:5000/#/runs/2">a</a>', "<a>b</a>"):
        page.write_text(text)
        checksums.append(snapshot.digests([tmp_path])["page.html"])
    assert checksums[0] == checksums[1] != checksums[2]


def test_the_results_of_a_stage_are_those_of_the_graph() -> None:
    assert snapshot.outputs("train_detection", Paths("demo")) == ["runs/demo/detection"]
    assert snapshot.outputs("studies", Paths("demo")) == ["runs/demo/studies/evaluating"]
    assert snapshot.outputs("studies", Paths("demo"), "scoring") == ["runs/demo/studies/evaluating/scoring"]
    assert snapshot.outputs("no such stage", Paths("demo")) == []


def test_a_run_by_hand_has_the_hash_of_what_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = Paths("smoke")
    lock = tmp_path / "dvc.lock"
    lock.write_text("stages: {data: {outs: [{path: data/smoke, hash: md5, md5: stale.dir}]}}")
    data = tmp_path / "data/smoke"
    data.mkdir(parents=True)
    (data / "dataset.json").write_text("{}")
    monkeypatch.setattr(Paths, "dvc_folder", tmp_path)
    monkeypatch.setattr("flows.profile.paths.ROOT", tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert lineage.tags(where, [where.data, where.detection])["dvc.data/smoke"] == lineage.folder_hash(data)
    monkeypatch.setenv("DVC_STAGE", "train_detection")  # dvc has compared them before it started us
    assert lineage.tags(where, [where.data])["dvc.data/smoke"] == "stale.dir"
