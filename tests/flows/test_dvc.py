"""The graph in dvc.yaml: what depends on what, and the smoke profile carried through it as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.paths import DEFAULT_PROFILE, PARAMS, ROOT, Paths

GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = GRAPH["stages"]
OTHERS = sorted(path.stem for path in PARAMS.glob("*.yaml") if path.stem != DEFAULT_PROFILE)


@pytest.mark.parametrize("profile", OTHERS)
def test_every_profile_has_the_same_graph_and_a_file_that_names_it(profile: str) -> None:
    folder = Paths(profile).dvc_folder
    assert (folder / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text(), f"cp dvc.yaml {folder}"
    assert yaml.safe_load((folder / "profile.yaml").read_text()) == {"profile": profile, "wd": "../.."}


def test_the_default_profile_is_at_the_root() -> None:
    assert yaml.safe_load((ROOT / "profile.yaml").read_text()) == {"profile": DEFAULT_PROFILE, "wd": "."}


def test_a_stage_depends_on_its_own_sections() -> None:
    sections = {name: set(stage["params"][0]["params/${profile}.yaml"]) for name, stage in STAGES.items()}
    others = {"train_detection": {"detector"}, "check": {"detector.queries"}}
    assert sections == {name: {name} | others.get(name, set()) for name in STAGES}


def test_outputs_are_where_the_stages_write_them() -> None:
    where = Paths("${profile}")
    models = [where.detection, where.panoptic, where.evaluation, where.study("decoder_nms")]
    written = [where.data, where.check, where.dataset, *models, where.report]
    assert [out for stage in STAGES.values() for out in stage["outs"]] == [str(path.relative_to(ROOT)) for path in written]


def test_code_that_a_stage_names_exists() -> None:
    for stage in STAGES.values():
        for dependency in stage["deps"]:
            assert "${profile}" in dependency or (ROOT / dependency).is_dir(), dependency


@pytest.mark.timeout(900)
def test_the_smoke_profile_from_a_clone_to_its_report(checkout: Path, environment: dict[str, str]) -> None:
    nowhere = environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=checkout, env=nowhere, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    graph = "params/smoke/dvc.yaml"
    run("flows.pipeline", "--profile", "smoke")
    assert (checkout / "reports/smoke/index.html").read_text().startswith("<!")
    lock = yaml.safe_load((checkout / "params/smoke/dvc.lock").read_text())
    assert set(lock["stages"]) == set(STAGES)
    assert not (checkout / "dvc.lock").exists()

    # Nothing to do, and quickly so; the bound is the promised one on a quiet machine, doubled.
    began = time.monotonic()
    assert "Data and pipelines are up to date" in run("dvc", "repro", graph)
    assert time.monotonic() - began < 10

    # What dvc shows is what the evaluation wrote.
    figures = json.loads((checkout / "runs/smoke/evaluation/metrics.json").read_text())
    shown = json.loads(run("dvc", "metrics", "show", "--json", "runs/smoke/evaluation/metrics.json"))
    assert next(iter(shown[""]["data"].values()))["data"] == pytest.approx(figures, abs=1e-9)
    run("dvc", "plots", "show", "reports/smoke/figures", "--out", "plots")
    assert list((checkout / "plots").rglob("*.png")) or list((checkout / "plots").rglob("*.svg"))

    # An NMS threshold retrains nothing, and how a profile is run is no part of what it is.
    params = checkout / "params/smoke.yaml"
    params.write_text(params.read_text().replace("nms: [null, 0.7, 0.5]", "nms: [null, 0.6]").replace("workers: 0", "workers: 1"))
    assert "0.6" in run("dvc", "params", "diff")
    status = json.loads(run("dvc", "status", "--json", graph))
    assert {name.rpartition(":")[2] for name in status} == {"ablations"}
