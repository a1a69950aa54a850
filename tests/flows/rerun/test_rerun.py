"""The rerun of a run from its id: the inputs that are restored, the refused cases, and which results count as equal."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.rerun import comparison, repetition, worktree
from flows.rerun.worktree import RerunError
from flows.tracking import lineage, reader, recorder, snapshot
from flows.tracking.reader import RecordedRun
from tests.flows.conftest import Command, cloned_from, git


def run_of(project: Path, **tags: str) -> RecordedRun:
    """Returns a run at the commit that is checked out in a project, as MLflow would record it."""
    about = {"stage": "train_panoptic", "profile": "smoke", "git.commit": git(project, "rev-parse", "HEAD"), "git.dirty": "false"}
    return RecordedRun("0a1b", "1", "FINISHED", about | tags, {}, None, None, {})


@pytest.fixture
def at(smoke: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a clone that has no results, but a DVC remote that has them, and makes it the project of this process."""
    cloned = cloned_from(smoke, tmp_path / "at")
    remote = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {smoke / '.dvc/cache'}\n"
    (cloned / ".dvc/config.local").write_text(remote)
    monkeypatch.setattr(worktree, "MAIN", cloned)
    monkeypatch.setattr(worktree, "SHARED", cloned / ".state")
    return cloned


@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", ["train_panoptic", pytest.param("evaluate", marks=pytest.mark.long)])
def test_a_repeated_run_is_the_same_bit_for_bit(
    stage: str, smoke: Path, clone: Path, server: dict[str, str], command: Command
) -> None:
    record = clone / ".state/mlflow/mlflow.db"
    record.parent.mkdir(parents=True)
    shutil.copy(smoke / ".state/mlflow/mlflow.db", record)
    with closing(sqlite3.connect(record)) as database:
        (run_id,) = database.execute("SELECT run_uuid FROM tags WHERE key = 'stage' AND value = ?", [stage]).fetchone()
        output = command(clone, "flows.rerun", run_id, **server)
        (verdict,) = database.execute("SELECT value FROM tags WHERE key = 'rerun' AND run_uuid = ?", [run_id]).fetchone()
    assert "the results are the same, bit for bit: " in output
    assert int(output.partition(" values and ")[2].split()[0]) >= 4, "files were compared too"
    assert verdict.startswith("the same, bit for bit: run ")
    assert not (clone / ".state/rerun" / run_id).exists(), "nothing is left of the work tree"
    assert git(clone, "worktree", "list").count("\n") == 0
    assert not (clone / "runs").exists(), "the checkout's own results are left alone"


def test_a_work_tree_has_the_code_the_parameters_and_the_data_of_the_run(smoke: Path, at: Path) -> None:
    read = {f"dvc.{name}": lineage.folder_hash(smoke / name) for name in ("data/smoke", "runs/smoke/detection")}
    code = at / "flows/tracking/prefect_summary.py"
    code.write_text(code.read_text() + "# changed\n")
    (at / "detr_core/new.py").write_text("# new\n")
    changes = snapshot.changes(at)
    assert changes is not None
    params = (at / "params/smoke.yaml").read_bytes().replace(b"processes: 1", b"processes: auto")
    run = run_of(at, **read, **{"git.dirty": "true", "machine.processes": "3"})
    git(at, "checkout", "-q", ".")
    (at / "detr_core/new.py").unlink()
    studies = (at / "params/smoke.studies.yaml").read_bytes().replace(b"repeats: 2", b"repeats: 3")
    tree = worktree.make(dataclasses.replace(run, patch=changes.patch, params=params, studies=studies))
    assert (tree / "params/smoke.studies.yaml").read_bytes() == studies
    assert (tree / "flows/tracking/prefect_summary.py").read_text().endswith("# changed\n")
    assert (tree / "detr_core/new.py").read_text() == "# new\n"
    assert "processes: 3" in (tree / "params/smoke.yaml").read_text()
    assert {f"dvc.{name}": lineage.folder_hash(tree / name) for name in ("data/smoke", "runs/smoke/detection")} == read
    worktree.remove(tree)
    assert not tree.exists()
    assert git(at, "worktree", "list").count("\n") == 0


NO_DATA = {"dvc.data/smoke": f"{'0' * 32}.dir"}


@pytest.mark.parametrize(
    ("tags", "patch", "message"),
    [
        ({"git.commit": "1" * 40}, None, "commit 1111111111111111111111111111111111111111 is not in this clone"),
        ({"git.dirty": "true"}, None, "its changes were not kept: an earlier version of the project recorded the run"),
        ({"git.dirty": "true", snapshot.NO_PATCH: "9.1 MB of changes"}, None, "its changes were not kept: 9.1 MB of changes"),
        ({"git.dirty": "true"}, b"no patch\n", "git can't make the work tree: "),
        ({"profile": "mine"}, None, "its profile 'mine' was neither committed nor kept with the run"),
        ({"dvc.../../out": f"{'0' * 32}.dir"}, None, "tag dvc.../../out: expected a path below the project, found a path"),
        ({"dvc./out": f"{'0' * 32}.dir"}, None, "tag dvc./out: expected a path below the project, found a path outside of it"),
        (
            NO_DATA,
            None,
            f"read data/smoke with the DVC hash {'0' * 32}.dir, but DVC's cache lacks files of it, and the remote lacks",
        ),
    ],
)
def test_an_unavailable_file_is_named_and_nothing_is_left_behind(
    at: Path, tags: dict[str, str], patch: bytes | None, message: str
) -> None:
    run = dataclasses.replace(run_of(at, **tags), patch=patch)
    with pytest.raises(RerunError) as raised:
        worktree.make(run)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not worktree.folder_of(run).exists()
    assert git(at, "worktree", "list").count("\n") == 0


def test_a_missing_remote_is_reported(at: Path) -> None:
    (at / ".dvc/config.local").unlink()
    with pytest.raises(RerunError, match="DVC's cache lacks files of it, and it could not be pulled from a remote: "):
        worktree.make(run_of(at, **NO_DATA))


def test_runs_that_belong_to_no_stage_are_refused() -> None:
    run = RecordedRun("0a1b", "1", "FINISHED", {"stage": "evaluate", "profile": "smoke"}, {}, None, None, {})
    for other, message in (
        (dataclasses.replace(run, status="KILLED"), "expected a run with the status FINISHED, found KILLED"),
        (dataclasses.replace(run, tags={}), "expected a run of one of this project's stages, found another run"),
        (dataclasses.replace(run, tags={**run.tags, "stage": "evaluate --out x"}), "expected the names of a stage and a profile"),
        (dataclasses.replace(run, tags={**run.tags, "profile": "../../out"}), "expected the names of a stage and a profile"),
        (
            dataclasses.replace(run, tags={**run.tags, reader.PARENT: "0c"}),
            "expected a whole study, found one setting of it; repeat the study's run 0c",
        ),
    ):
        with pytest.raises(RerunError, match=message):
            repetition.require_a_stage(other)


def test_a_run_is_read_back_with_those_below_it(database: Path) -> None:
    with recorder.stage_run("studies", recorder.Paths("demo"), {}, [], name="decoder-nms") as record:
        record.metrics({"AP": 0.5}, 1)
        record.metrics({"AP": 0.25, "system/power": 3}, 2)
        with record.child("nms 0.7", {}) as child:
            child.metrics({"AP": 0.125}, 1)
    run = reader.recorded(record.run_id)
    assert run.metrics == {"AP": {1: 0.5, 2: 0.25}, "nms 0.7: AP": {1: 0.125}}
    assert run.params == (recorder.ROOT / "params/demo.yaml").read_bytes()
    assert run.studies == (recorder.ROOT / "params/demo.studies.yaml").read_bytes()
    assert run.results == {}, "the demo has no such results here"
    assert int(run.tags["machine.threads"]) >= 1
    with pytest.raises(recorder.TrackingError, match=r"^MLflow at sqlite:.*: run '0a1b': .*not found$"):
        reader.recorded("0a1b")


def test_reading_a_run_without_a_database_fails_and_creates_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(recorder.TrackingError, match="expected a database with runs, found none"):
        reader.recorded("0a1b")
    assert not (tmp_path / "mlflow.db").exists()


def test_the_comparison_bit_for_bit_covers_every_value_and_every_file() -> None:
    nan = float("nan")
    before = RecordedRun("1", "1", "FINISHED", {}, {"loss": {1: 0.5, 2: 0.25}, "val": {2: nan}}, None, None, {"a": "1", "b": "2"})
    same = dataclasses.replace(before, run_id="2", metrics={"loss": {1: 0.5, 2: 0.25, 3: 9.0}, "val": {2: nan}})
    assert comparison.bit_for_bit(before, same) == comparison.RunComparison(3, 2, ())
    other = dataclasses.replace(before, metrics={"loss": {1: 0.5, 2: 0.25 + 2**-54}}, results={"a": "3", "c": "4"})
    assert comparison.bit_for_bit(before, other).differences == (
        "loss at step 2: the run has 0.25, its repetition 0.25000000000000006",
        "val at step 2: the run has nan, its repetition no value",
        "a: the contents differ",
        "b: the repetition did not make it",
        "c: only the repetition made it",
    )
    nothing = RecordedRun("1", "1", "FINISHED", {}, {}, None, None, {})
    assert not comparison.bit_for_bit(nothing, nothing).same, "nothing was compared"


@pytest.mark.parametrize(
    ("value", "later", "same"),
    [(0.5, 0.515, True), (0.5, 0.525, False), (100.0, 102.0, True), (100.0, 102.1, False), (float("inf"), float("inf"), True)],
)
def test_a_tolerance_compares_last_values_and_is_a_share_of_values_above_one(value: float, later: float, same: bool) -> None:
    before = RecordedRun("1", "1", "FINISHED", {}, {"m": {1: 1.0, 2: value}}, None, None, {})
    after = dataclasses.replace(before, metrics={"m": {1: 9.0, 2: later}})
    assert comparison.within(before, after, 0.02).same == same
