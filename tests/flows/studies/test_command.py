"""The command `flows.studies`: its messages, its runs in MLflow and the report that it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from tests.conftest import Trained, tiny_parameters, write_parameters
from tests.flows.studies.tiny_study import STEP


class StudiesCommand:
    """The command `flows.studies` in a checkout, and its runs in MLflow."""

    def __init__(self, checkout: Path, environment: dict[str, str]) -> None:
        self.checkout, self.environment = checkout, environment
        self.record = f"sqlite:///{checkout / '.state/mlflow/mlflow.db'}"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.studies", *arguments, "--profile", "tiny"]
        return subprocess.run(command, cwd=self.checkout, env=self.environment, capture_output=True, text=True, check=False)

    def recorded(self, query: str) -> list[Run]:
        """Returns the recorded runs that the query selects, the newest first."""
        mlflow.set_tracking_uri(self.record)
        try:
            client = mlflow.MlflowClient()
            experiment = client.get_experiment_by_name("detr tiny")
            assert experiment is not None
            return list(client.search_runs([experiment.experiment_id], query))
        finally:
            mlflow.set_tracking_uri(None)


@pytest.fixture
def studies(
    trained: Trained, checkout: Path, environment: dict[str, str], server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> StudiesCommand:
    """Returns the command in a checkout with the data and the evaluation of the profile `tiny`."""
    shutil.copytree(trained.paths.data, checkout / "data" / "tiny")
    shutil.copytree(trained.paths.dataset, checkout / "runs" / "tiny" / "dataset")
    shutil.copytree(trained.paths.evaluation, checkout / "runs/tiny/evaluation")
    result = StudiesCommand(checkout, environment | server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", result.record)
    return result


def require_recorded(studies: StudiesCommand, table: dict[str, Any]) -> str:
    """Asserts that MLflow has the failed study and its finished variant. Returns the id of the variant's run."""
    (parent,) = studies.recorded("tags.stage = 'studies'")
    assert (parent.info.run_name, parent.info.status) == ("depth tiny", "FAILED")
    (child,) = studies.recorded("params.encoder_layers = '1'")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params["variant"] == "one + more"
    assert child.data.params["detector.encoder_layers"] == "1"
    assert {"val/AP", "train/loss", "cost/gflops"} <= child.data.metrics.keys()
    assert child.data.metrics["val/AP"] == table["runs"][1]["metrics"]["val/AP"]
    assert child.info.run_id in parent.data.tags["comparison"]
    assert not [tag for tag in child.data.tags if tag.startswith("reused")]
    return str(child.info.run_id)


@pytest.mark.timeout(900)
def test_the_command_names_the_failed_variants_and_mlflow_has_every_variant(studies: StudiesCommand) -> None:
    content, checkout = tiny_parameters(), studies.checkout
    broken = {"detector.encoder_layers": 2, "train_detection.init": {"checkpoint": "no/such.pt", "sha256": None}}
    variants = {"none": {"detector.encoder_layers": 0}, "one + more": {"detector.encoder_layers": 1}, "broken": broken}
    depth = {"paper": "Table 2", "base": "one + more", "seeds": [0], "median_of": 1, "set": STEP, "variants": variants}
    content["studies"] = {"evaluating": {}, "training": {"depth": depth}}
    content["resources"]["side_by_side"] = 2
    write_parameters(checkout / "params" / "tiny.yaml", content)

    unknown = studies.run("dept")
    assert unknown.returncode == 1
    assert (
        unknown.stderr.strip() == "error: study 'dept': profile 'tiny' has no such study; did you mean 'depth'? known: depth, all"
    )

    done = studies.run("depth")
    assert done.returncode == 1, done.stdout + done.stderr
    message = "error: study depth: 1 of 3 variants failed: broken-seed0: no/such.pt: expected a file, found none"
    assert message in done.stderr
    table = json.loads((checkout / "runs/tiny/studies/training/depth/study.json").read_text())
    assert [run["status"] for run in table["runs"]] == ["finished", "finished", "failed"]
    assert table["runs"][0]["differences"].keys() == {"AP"}

    report = checkout / "reports/tiny/index.html"
    assert "reports/tiny/index.html: writing the report again" in done.stdout + done.stderr
    page = report.read_text()
    assert 'id="study-depth"' in page
    assert "broken, seed 0" in page
    run_id = require_recorded(studies, table)

    del variants["broken"]
    write_parameters(checkout / "params" / "tiny.yaml", content)
    assert studies.run("depth").returncode == 0
    assert "broken, seed 0" not in report.read_text()
    newest = studies.recorded("params.encoder_layers = '1'")[0]
    assert newest.data.tags["reused.detection"] == newest.data.tags["reused.evaluation"] == run_id
    again = studies.run("depth")
    assert again.returncode == 0
    assert "all 2 variants are up to date, and nothing is done" in again.stdout + again.stderr
    assert "writing the report again" not in again.stdout + again.stderr, "the page has it all"
