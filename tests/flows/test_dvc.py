"""The graph in dvc.yaml: its dependencies, and a run of the profile smoke with a user's commands."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from detr_core.model.spec import KINDS
from detr_core.studies.comparison import Run, StudyTable, write_table
from flows.profile.paths import DEFAULT_PROFILE, PARAMS, ROOT, Paths, profile_names, relative
from flows.profile.settings import load
from flows.tracking import lineage
from tests.flows.conftest import Command

GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = GRAPH["stages"]
# What the data stage of a profile is linked to besides its parameters; that of a folder that is read in place is that folder.
SOURCES = {"scenes": "detr_core/sources/scenes.py", "download": "detr_core/sources/archives.py"}
OTHERS = [name for name in profile_names() if name != DEFAULT_PROFILE]


def named_by(profile: str) -> dict[str, str]:
    """Returns what the `profile.yaml` of a profile has to name."""
    kind = load(profile).detector.kind
    return {"profile": profile, "kind": kind, "builds_on": KINDS[kind].builds_on}


@pytest.mark.parametrize("profile", OTHERS)
def test_every_profile_has_the_same_graph_and_a_file_that_names_it(profile: str) -> None:
    folder = Paths(profile).dvc_folder
    assert (folder / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text(), "run `python -m flows.graphs`"
    named = yaml.safe_load((folder / "profile.yaml").read_text())
    assert named == named_by(profile) | {"wd": "../.."}
    assert (PARAMS / profile / "source").resolve() == ROOT / SOURCES[load(profile).data.source]


def test_the_default_profile_is_at_the_root() -> None:
    assert yaml.safe_load((ROOT / "profile.yaml").read_text()) == named_by(DEFAULT_PROFILE) | {"wd": "."}
    assert Paths(DEFAULT_PROFILE).source.resolve() == ROOT / SOURCES["scenes"]


def test_a_stage_depends_on_its_own_sections() -> None:
    def sections(end: str) -> dict[str, set[str]]:
        file = f"params/${{profile}}{end}"
        return {name: {key for part in stage.get("params", []) for key in part.get(file, [])} for name, stage in STAGES.items()}

    own = {name: {name} if "params" in stage else set() for name, stage in STAGES.items()} | {"studies": set()}
    own["check"] |= {"detector"}  # for the number of queries, or of what another kind has instead
    own["train_detection"] |= {"detector"}
    assert sections(".yaml") == own
    own_studies: dict[str, set[str]] = {name: set() for name in STAGES}
    own_studies["studies"] = {"evaluating"}  # it does not depend on the settings of training studies
    own_studies["report"] = {"evaluating", "training"}  # it says which studies there are to be run
    assert sections(".studies.yaml") == own_studies


def test_outputs_are_where_the_stages_write_them() -> None:
    where = Paths("${profile}")
    written = {
        "data": [where.data],
        "check": [where.check, where.dataset],
        "train_detection": [where.detection],
        "train_panoptic": [where.panoptic],
        "evaluate": [where.evaluation, where.headline],
        "studies": [where.evaluating_studies],
        "report": [where.report],
    }
    kept = {"persist": True}  # dvc would delete files of somebody's own with the results
    for name, stage in STAGES.items():
        assert stage["outs"] == [{relative(path): kept} for path in written.get(name, [where.result(name)])]
    assert written.keys() <= STAGES.keys()
    outs = [next(iter(out)) for stage in STAGES.values() for out in stage["outs"]]
    assert len(set(outs)) == len(outs)


@pytest.mark.timeout(900)
def test_the_smoke_profile_runs_from_a_clone_to_its_report(smoke: Path) -> None:
    assert (smoke / "reports/smoke/index.html").read_text().startswith("<!")
    assert "AP rises with the number of encoder layers" in (smoke / "reports/smoke/claims.html").read_text()
    recorded = {file.name for file in (smoke / ".state/mlflow/artifacts").rglob("report/*.html")}
    assert recorded == {"index.html", "claims.html"}
    lock = yaml.safe_load((smoke / "params/smoke/dvc.lock").read_text())
    assert set(lock["stages"]) == set(STAGES)
    assert not (smoke / "dvc.lock").exists()

    # In MLflow the dataset has DVC's hash from the stage on that makes it, before DVC itself knows it.
    dataset = lineage.dvc_hashes(smoke / "params/smoke/dvc.lock")["data/smoke"]
    with closing(sqlite3.connect(smoke / ".state/mlflow/mlflow.db")) as database:
        assert database.execute("SELECT DISTINCT name, digest FROM datasets").fetchall() == [("smoke", dataset)]
        used = database.execute("SELECT COUNT(*) FROM inputs WHERE source_type = 'DATASET'").fetchone()
    studies = len(load("smoke").studies.evaluating)
    assert used == (6 + studies,)  # by the data stage, the check, both trainings, the evaluation, these studies and the report


@pytest.mark.timeout(900)
def test_dvc_repeats_only_stages_whose_inputs_changed(clone: Path, server: dict[str, str], command: Command) -> None:
    run, graph = partial(command, clone, **server), "params/smoke/dvc.yaml"
    run("dvc", "checkout", "--quiet", graph)

    # Nothing to do, and quickly so: in the promised 5 seconds on a quiet machine, so in 5 seconds of processor time on any.
    before = sum(os.times()[2:4])
    assert "Data and pipelines are up to date" in run("dvc", "repro", graph)
    assert sum(os.times()[2:4]) - before < 5

    # What dvc shows is what the evaluation wrote.
    metrics = json.loads((clone / "runs/smoke/evaluation/metrics.json").read_text())
    listing = json.loads(run("dvc", "metrics", "show", "--json", "runs/smoke/evaluation/metrics.json"))
    assert next(iter(listing[""]["data"].values()))["data"] == pytest.approx(metrics, abs=1e-9)
    run("dvc", "plots", "show", "reports/smoke/plots", "--out", "plots")
    assert list((clone / "plots").rglob("*.png")) or list((clone / "plots").rglob("*.svg"))

    # A study that trains has its table in the report, and the weights of its variants are none of that stage's business.
    study = clone / "runs/smoke/studies/training/feed-forward"
    (study / "with-seed0/detection").mkdir(parents=True)
    (study / "with-seed0/detection/checkpoint.pt").write_bytes(b"weights")
    assert json.loads(run("dvc", "status", "--json", graph)) == {}
    run_of = Run("with", 0, {}, {}, "finished", None, {"val/AP": 0.25}, [], None)
    write_table(StudyTable("feed-forward", "smoke", "section 4.2", "with", [run_of]), study)
    status = json.loads(run("dvc", "status", "--json", graph))
    assert {name.rpartition(":")[2] for name in status} == {"report"}
    page = clone / "reports/smoke/index.html"
    assert "flows.studies feed-forward --profile smoke" in page.read_text()
    run("flows.report", "--profile", "smoke")
    html = page.read_text()
    assert 'id="study-feed-forward"' in html
    run("dvc", "repro", graph)
    assert page.read_text() == html, "the page that was drawn without dvc is dvc's page too"

    # A new NMS threshold retrains nothing, and a change of `resources` makes no stage stale.
    for end, old, new in ((".studies", "nms: [null, 0.7, 0.5]", "nms: [null, 0.6]"), ("", "workers: 0", "workers: 1")):
        params = clone / f"params/smoke{end}.yaml"
        params.write_text(params.read_text().replace(old, new))
    assert "0.6" in run("dvc", "params", "diff")
    status = json.loads(run("dvc", "status", "--json", graph))
    assert {name.rpartition(":")[2] for name in status} == {"studies", "report"}

    # Nor does a change of what measures and draws.
    for room in ("evaluate", "plots"):
        (clone / "detr_core" / room / "new.py").write_text("# another figure")
    status = json.loads(run("dvc", "status", "--json", graph))
    assert {name.rpartition(":")[2] for name in status} == {"evaluate", "studies", "report"}


EVERYTHING = set(STAGES)
MODELS = {"train_detection", "train_panoptic", "evaluate", "studies"}
CHANGES = {
    "sources/scenes.py": {"data"},
    "sources/formats/voc.py": {"data"},
    "sources/unpacking.py": {"data"},
    "plots/studies/decoder_nms.py": {"report"},
    "model/deformable/model.py": set(),
    "train_mask_head/loss.py": {"train_panoptic"},
    "jobs/train_panoptic.py": {"train_panoptic"},
    "jobs/validation.py": set(),
    "data/transforms.py": MODELS,
    "data/masks.py": EVERYTHING - {"data"},
    "data/images.py": EVERYTHING,
    "evaluate/areas.py": {"check", "evaluate", "studies", "report"},
    "loss/matcher.py": {"train_detection", "train_panoptic"},
    "train/initial.py": {"train_detection"},
    "studies/training.py": set(),
    "studies/comparison.py": {"report"},
    "studies/measurements/scoring.py": {"studies"},
    "model/transformer/transformer.py": MODELS,
}


@pytest.mark.timeout(900)
def test_an_edited_module_makes_stale_what_depends_on_it_and_nothing_else(clone: Path, command: Command) -> None:
    graph = "params/smoke/dvc.yaml"
    command(clone, "dvc", "checkout", "--quiet", graph)
    for name, stale in CHANGES.items():
        module = clone / "detr_core" / name
        before = module.read_text(encoding="utf-8")
        module.write_text(before + "\n# changed\n", encoding="utf-8")
        status = json.loads(command(clone, "dvc", "status", "--json", graph))
        assert {line.rpartition(":")[2] for line in status} == stale, name
        module.write_text(before, encoding="utf-8")
