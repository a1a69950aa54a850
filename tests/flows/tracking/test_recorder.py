"""The record in a real MLflow database: the content of a stage's run, its end, and that recording does not delay a stage."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote

import mlflow
import pytest
from mlflow.entities import Run

from detr_core.train.config import InitConfig
from flows.profile.paths import ROOT, Paths
from flows.runtime import training_run
from flows.tracking import lineage, recorder, ui_addresses
from flows.tracking.tracking_address import tracking_uri

DEMO = Paths("demo")


def stored(record: recorder.RunRecorder) -> Run:
    return mlflow.MlflowClient().get_run(record.run_id)


def wait_for_system_metrics(record: recorder.RunRecorder) -> None:
    """Waits until MLflow has the first of them, however busy the machine is; after a minute the test's assertion fails."""
    deadline = time.monotonic() + 60
    while "system/cpu_utilization_percentage" not in stored(record).data.metrics and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_run_holds_parameters_metrics_lineage_metrics_and_system_metrics(database: Path, tmp_path: Path) -> None:
    figure = tmp_path / "curve.svg"
    figure.write_text("<svg/>")
    manifest = {"root": "/where/it/lies", "val": {"images": {"files": 3, "bytes": 10, "digest": "ab"}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))  # of a dataset that is read in place
    with recorder.stage_run(
        "train_detection", DEMO, {"a.b": 1, "a.c": None, "a.d": "x"}, [DEMO.data], sample_seconds=0.1
    ) as record:
        for step in range(1200):
            record.metrics({"train/loss": 1.0 / (step + 1)}, step)
        record.plots([figure])
        record.dataset(tmp_path, None, "source")
        wait_for_system_metrics(record)
    run = stored(record)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"a.b": "1", "a.c": "null", "a.d": "x"}
    history = mlflow.MlflowClient().get_metric_history(record.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(step, 1.0 / (step + 1)) for step in range(1200)]
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert run.data.tags["git.commit"] == subprocess.check_output(["git", "-C", ROOT, "rev-parse", "HEAD"], text=True).strip()
    assert run.data.tags["stage"] == "train_detection"
    used = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert set(used) == {"training", "source"}
    assert json.loads(used["training"].source) == {"uri": "data/demo"}
    assert json.loads(used["source"].source) == {"uri": "/where/it/lies"}
    assert json.loads(used["source"].profile)["manifest"] == manifest
    assert len(used["source"].digest) == 32
    assert [file.path for file in mlflow.MlflowClient().list_artifacts(record.run_id, "plots")] == ["plots/curve.svg"]
    assert (database.parent / "artifacts").is_dir(), "artifacts lie beside the database, wherever the process works"


def test_system_metrics_go_on_after_mlflow_failed_for_a_while(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "SECONDS_AFTER_FAILURE", 0.05)
    working, failures = mlflow.MlflowClient.get_run, []

    def failing(client: mlflow.MlflowClient, run_id: str) -> Run:
        if len(failures) < 3:
            failures.append(run_id)
            raise OSError("the server is away")
        return working(client, run_id)

    monkeypatch.setattr(mlflow.MlflowClient, "get_run", failing)
    with recorder.stage_run("train_detection", DEMO, {}, [], sample_seconds=0.05) as record:
        deadline = time.monotonic() + 20
        while len(failures) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        wait_for_system_metrics(record)
    assert failures == [record.run_id] * 3
    assert "system/cpu_utilization_percentage" in stored(record).data.metrics


def test_a_run_names_the_checksum_of_the_checkpoint_that_it_started_from(database: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    init = InitConfig(str(tmp_path / "a.pth"), None)
    with recorder.stage_run("train_panoptic", DEMO, {}, []) as record:
        training_run.tag_init(record, init)
    assert stored(record).data.tags["init.sha256"] == hashlib.sha256(b"weights").hexdigest()
    with recorder.stage_run("train_panoptic", DEMO, {}, []) as record:
        training_run.tag_init(record, None)
    assert "init.sha256" not in stored(record).data.tags


@pytest.mark.parametrize(("error", "status"), [(ValueError("no such split"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_failed_run_is_marked_as_failed(database: Path, error: BaseException, status: str) -> None:
    records = []

    def stage() -> None:
        with recorder.stage_run("data", DEMO, {}, []) as record:
            records.append(record)
            record.metrics({"loss": 3.0}, 7)
            raise error

    with pytest.raises(type(error)):
        stage()
    run = stored(records[0])
    assert run.info.status == status
    assert run.data.metrics["loss"] == 3.0, "what was told before the end is kept"
    assert run.data.tags.get("error") == ("ValueError: no such split" if status == "FAILED" else None)
    assert mlflow.active_run() is None


@pytest.mark.parametrize("stage", ["studies", "ablations"])  # the second is the name in earlier versions of the project
def test_the_settings_of_a_study_are_child_runs_that_the_comparison_selects(stage: str, database: Path) -> None:
    with recorder.stage_run(stage, DEMO, {}, []) as parent:
        children = []
        for depth in (1, 2):
            with parent.child(f"depth {depth}", {"decoder_depth": depth, "nms": "off"}) as child:
                child.metrics({"AP": depth / 10}, step=depth)
            children.append(child)
            parent.metrics({"AP/nms_off": depth / 10}, step=depth)
        address = ui_addresses.compare_page([child.run_id for child in children], parent.experiment_id)
        parent.tag(recorder.COMPARISON, ui_addresses.stored(address))
    for depth, child in enumerate(children, start=1):
        run = stored(child)
        assert run.data.tags["mlflow.parentRunId"] == parent.run_id
        assert run.data.params == {"decoder_depth": str(depth), "nms": "off"}
        assert run.data.metrics == {"AP": depth / 10}
        assert run.info.status == "FINISHED"
    series = mlflow.MlflowClient().get_metric_history(parent.run_id, "AP/nms_off")
    assert [(metric.step, metric.value) for metric in series] == [(1, 0.1), (2, 0.2)]
    chart = ui_addresses.chart_page(parent.run_id, parent.experiment_id, ["AP/nms_off", "AP/nms_0.7"])
    assert json.loads(parse_qs(chart.split("/#/metric?")[1])["plot_metric_keys"][0]) == ["AP/nms_off", "AP/nms_0.7"]
    base, query = address.split("/#/compare-runs?")
    assert base == "http://127.0.0.1:5000"
    selected = {name: json.loads(unquote(value)) for name, (value,) in parse_qs(query).items()}
    assert selected == {"runs": [child.run_id for child in children], "experiments": [parent.experiment_id]}
    assert parent.links()[f"{stage} compared in MLflow"] == address
    for tag in ("rerun.of", "again.of"):
        with recorder.stage_run(stage, DEMO, {}, []) as repetition:
            repetition.tag(recorder.COMPARISON, "#/a repetition")
            repetition.tag(tag, parent.run_id)
    assert parent.links()[f"{stage} compared in MLflow"] == address, "repetitions are not linked, under either name of their tag"
    assert stored(parent).data.tags[recorder.COMPARISON] == address.removeprefix(base + "/"), "wherever the UI is later"
    assert ui_addresses.to_open(address) == f"make serve, then {address}", "nothing answers there before"
    assert ui_addresses.to_open("http://elsewhere:5000/#/runs") == "http://elsewhere:5000/#/runs"


def test_the_list_of_runs_shows_profile_and_metrics(database: Path) -> None:
    with recorder.stage_run("evaluate", DEMO, {}, []) as record:
        assert stored(record).info.run_name == "evaluate demo"
        record.metrics({"val/AP": 0.5642, "val/PQ": 0.75, "val/AP/circle": 0.1}, step=0)
    run = stored(record)
    assert run.info.run_name == "evaluate demo, AP 0.564"
    assert run.data.tags["mlflow.note.content"] == "Stage evaluate of profile demo: AP 0.564, PQ 0.750."
    experiment = mlflow.MlflowClient().get_experiment(record.experiment_id)
    columns = json.loads(experiment.tags["mlflow.sharedViewState.detr"])["selectedColumns"]
    assert {"tags.`profile`", "metrics.`val/AP`"} <= set(columns)
    assert ui_addresses.experiment_page("7").endswith("/#/experiments/7/runs?viewStateShareKey=detr")


def test_a_server_that_is_not_there_stops_the_stage_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    try:
        with pytest.raises(recorder.TrackingError) as raised, recorder.stage_run("data", DEMO, {}, []):
            raise AssertionError("the stage must not begin")
    finally:
        mlflow.set_tracking_uri(None)
    assert "MLflow at http://127.0.0.1:9" in str(raised.value)
    assert "unset MLFLOW_TRACKING_URI" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_record_that_breaks_leaves_the_stage_alone(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    with recorder.stage_run("data", DEMO, {}, []) as record:
        record.artifact(database.parent / "there is no such file")
    assert "could not record there is no such file" in caplog.text
    assert stored(record).info.status == "FINISHED"


def test_two_processes_can_be_the_first_to_use_a_database(database: Path) -> None:
    code = "from flows.tracking.recorder import prepare; print(prepare('detr demo'))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert answers[0][0] == answers[1][0], "both found the same experiment"


def test_the_default_database_is_the_projects_whatever_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tracking_uri() == f"sqlite:///{ROOT}/.state/mlflow/mlflow.db"


def test_dvc_hashes_are_those_of_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    assert lineage.dvc_hashes(lock) == {}
    lock.write_text(
        "schema: '2.0'\nstages:\n  data:\n    cmd: python -m flows.data\n"
        "    deps:\n    - {path: flows/data.py, hash: md5, md5: 1}\n"
        "    outs:\n    - {path: data/demo, hash: md5, md5: 0a1b.dir, size: 9, nfiles: 2}\n"
    )
    assert lineage.dvc_hashes(lock) == {"data/demo": "0a1b.dir"}


def test_dvc_lock_does_not_make_a_checkout_dirty(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    assert lineage.git(tmp_path) == {}
    git("init", "--quiet")
    (tmp_path / "dvc.lock").write_text("a")
    (tmp_path / "code.py").write_text("a")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    (tmp_path / "dvc.lock").write_text("b")
    assert lineage.git(tmp_path)["git.dirty"] == "false"
    (tmp_path / "code.py").write_text("b")
    assert lineage.git(tmp_path)["git.dirty"] == "true"


def test_a_folder_that_is_not_in_the_lock_yet_has_dvcs_hash(tmp_path: Path) -> None:
    for name in ("b/two.txt", "a.txt", "b-c.txt"):  # in DVC's order the slash counts as a character
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert lineage.folder_hash(tmp_path) == "83c84aee8d73edbf59693c9e358d2ea4.dir"
