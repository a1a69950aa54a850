"""The graph in dvc.yaml: its dependencies, and a run of the profile smoke with a user's commands."""

from __future__ import annotations

import ast
import json
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from detr_core.studies.comparison import Run, Table, write_table
from detr_core.studies.config import EVALUATING
from flows import lineage, paths
from flows.paths import DEFAULT_PROFILE, PARAMS, ROOT, Paths, relative
from flows.settings import load
from tests.flows.conftest import Command

GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = GRAPH["stages"]
# What the data stage of a profile is linked to besides its parameters; that of a folder that is read in place is that folder.
SOURCES = {"scenes": "detr_core/data/scenes.py", "download": "detr_core/data/archives.py"}
OTHERS = sorted(path.stem for path in PARAMS.glob("*.yaml") if path.stem != DEFAULT_PROFILE)


@pytest.fixture(autouse=True)
def _own_project(monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests have put a temporary folder in the project's place.
    monkeypatch.setattr(paths, "ROOT", ROOT)


@pytest.mark.parametrize("profile", OTHERS)
def test_every_profile_has_the_same_graph_and_a_file_that_names_it(profile: str) -> None:
    folder = Paths(profile).dvc_folder
    assert (folder / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text(), f"cp dvc.yaml {folder}"
    named = yaml.safe_load((folder / "profile.yaml").read_text())
    assert named == {"profile": profile, "wd": "../.."}
    assert (PARAMS / profile / "source").resolve() == ROOT / SOURCES[load(profile).data.source]


def test_the_default_profile_is_at_the_root() -> None:
    assert yaml.safe_load((ROOT / "profile.yaml").read_text()) == {
        "profile": DEFAULT_PROFILE,
        "wd": ".",
    }
    assert Paths(DEFAULT_PROFILE).source.resolve() == ROOT / SOURCES["scenes"]


def test_a_stage_depends_on_its_own_sections() -> None:
    sections = {name: set(stage["params"][0]["params/${profile}.yaml"]) for name, stage in STAGES.items()}
    own = {name: {name} for name in STAGES}
    own["check"] |= {"detector"}  # for the number of queries, or of what another kind has instead
    own["train_detection"] |= {"detector"}
    own["ablations"] = {f"ablations.{study}" for study in EVALUATING}  # the others' budgets are none of its business
    own["report"] |= {"ablations"}  # it says which studies there are to be run
    assert sections == own


def test_outputs_are_where_the_stages_write_them() -> None:
    where = Paths("${profile}")
    studies = [where.study(name) for name in EVALUATING]
    models = [where.detection, where.panoptic, where.evaluation, where.headline, *studies]
    written = [where.data, where.check, where.dataset, *models, where.report]
    kept = {"persist": True}  # dvc would delete files of somebody's own with the results
    assert [out for stage in STAGES.values() for out in stage["outs"]] == [{relative(path): kept} for path in written]


# The module in which a stage's work happens, and what that imports of detr_core without its result depending on it.
WORK = {
    "data": ("flows/data.py", {"detr_core/structures.py"}),
    "check": ("flows/check.py", {"detr_core/structures.py", "detr_core/model", "detr_core/evaluate"}),
    "train_detection": ("flows/worker.py", {"detr_core/evaluate"}),
    "train_panoptic": ("flows/worker.py", {"detr_core/evaluate"}),
    "evaluate": ("flows/evaluation_worker.py", set()),
    "ablations": ("flows/studies/evaluating.py", {"detr_core/figures"}),
    "report": ("flows/report.py", set()),
}
# COCO's own categories never change. What is downloaded is verified, whatever brought it; what is told decides nothing.
NO_RESULT = {
    f"detr_core/{name}.py"
    for name in (
        "atomic",
        "coco",
        "directories",
        "download",
        "errors",
        "partial",
        "redaction",
        "reporter",
        "storage",
        "web",
        "wording",
    )
}


def core_behind(file: Path, seen: set[Path]) -> set[Path]:
    """The files of detr_core that this one imports, those that they import, and so on; imports in functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("detr_core"):
            parts = str(node.module).split(".")
            for module in (parts, *([*parts, alias.name] for alias in node.names)):
                found = ROOT.joinpath(*module).with_suffix(".py")
                if found.is_file() and found not in seen:
                    seen.add(found)
                    core_behind(found, seen)
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_the_code_that_decides_its_result(stage: str) -> None:
    work, apart = WORK[stage]
    behind = [file.relative_to(ROOT) for file in core_behind(ROOT / work, set())]
    rooms = {str(file.parent if len(file.parts) > 2 else file) for file in behind} - NO_RESULT - apart
    workers = {work} if work.endswith("worker.py") else set()
    assert {dependency for dependency in STAGES[stage]["deps"] if "${" not in dependency} == rooms | workers


@pytest.mark.timeout(900)
def test_the_smoke_profile_from_a_clone_to_its_report(smoke: Path) -> None:
    assert (smoke / "reports/smoke/index.html").read_text().startswith("<!")
    lock = yaml.safe_load((smoke / "params/smoke/dvc.lock").read_text())
    assert set(lock["stages"]) == set(STAGES)
    assert not (smoke / "dvc.lock").exists()

    # In MLflow the dataset has DVC's hash from the stage on that makes it, before DVC itself knows it.
    dataset = lineage.dvc_hashes(smoke / "params/smoke/dvc.lock")["data/smoke"]
    with closing(sqlite3.connect(smoke / ".state/mlflow/mlflow.db")) as database:
        assert database.execute("SELECT DISTINCT name, digest FROM datasets").fetchall() == [("smoke", dataset)]
        used = database.execute("SELECT COUNT(*) FROM inputs WHERE source_type = 'DATASET'").fetchone()
    assert used == (11,)  # by the data stage, the check, both trainings, the evaluation, five studies and the report


@pytest.mark.timeout(900)
def test_what_dvc_does_again_and_what_it_leaves(clone: Path, command: Command) -> None:
    run, graph = partial(command, clone), "params/smoke/dvc.yaml"
    run("dvc", "checkout", "--quiet", graph)

    # Nothing to do, and quickly so; the bound is the promised one on a quiet machine, doubled.
    began = time.monotonic()
    assert "Data and pipelines are up to date" in run("dvc", "repro", graph)
    assert time.monotonic() - began < 10

    # What dvc shows is what the evaluation wrote.
    figures = json.loads((clone / "runs/smoke/evaluation/metrics.json").read_text())
    shown = json.loads(run("dvc", "metrics", "show", "--json", "runs/smoke/evaluation/metrics.json"))
    assert next(iter(shown[""]["data"].values()))["data"] == pytest.approx(figures, abs=1e-9)
    run("dvc", "plots", "show", "reports/smoke/figures", "--out", "plots")
    assert list((clone / "plots").rglob("*.png")) or list((clone / "plots").rglob("*.svg"))

    # A study that trains has its table in the report, and the weights of its variants are none of that stage's business.
    study = clone / "runs/smoke/studies/feed-forward"
    (study / "with-seed0/detection").mkdir(parents=True)
    (study / "with-seed0/detection/checkpoint.pt").write_bytes(b"weights")
    assert json.loads(run("dvc", "status", "--json", graph)) == {}
    run_of = Run("with", 0, {}, {}, "finished", None, {"val/AP": 0.25}, [], None)
    write_table(Table("feed-forward", "smoke", "section 4.2", "with", [run_of]), study)
    status = json.loads(run("dvc", "status", "--json", graph))
    assert {name.rpartition(":")[2] for name in status} == {"report"}
    page = clone / "reports/smoke/index.html"
    assert "ablations feed-forward --profile smoke" in page.read_text()
    run("flows.report", "--profile", "smoke")
    drawn = page.read_text()
    assert 'id="study-feed-forward"' in drawn
    run("dvc", "repro", graph)
    assert page.read_text() == drawn, "the page that was drawn without dvc is dvc's page too"

    # An NMS threshold retrains nothing, and how a profile is run is no part of what it is.
    params = clone / "params/smoke.yaml"
    params.write_text(params.read_text().replace("nms: [null, 0.7, 0.5]", "nms: [null, 0.6]").replace("workers: 0", "workers: 1"))
    assert "0.6" in run("dvc", "params", "diff")
    status = json.loads(run("dvc", "status", "--json", graph))
    assert {name.rpartition(":")[2] for name in status} == {"ablations", "report"}

    # Nor does a change of what measures and draws.
    for room in ("evaluate", "figures"):
        (clone / "detr_core" / room / "new.py").write_text("# another figure")
    status = json.loads(run("dvc", "status", "--json", graph))
    assert {name.rpartition(":")[2] for name in status} == {"check", "evaluate", "ablations", "report"}
