"""The options of a training for GPUs: what they change, what they leave as it is, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.config import ConfigError, as_dict, build
from detr_core.jobs.training import TrainingJob, chosen
from detr_core.reporter import Silent
from detr_core.train.config import DetectionConfig
from tests.conftest import tiny_parameters, tiny_settings
from tests.jobs.training_jobs import ALONE, history, job, job_of, weights
from tests.jobs.training_process import carry_out

OPTIONS: dict[str, Any] = {"fold_norm": False}  # with the values that change nothing


def with_frozen_norm(job: TrainingJob) -> TrainingJob:
    assert job.detector is not None
    backbone = job.detector["backbone"] | {"norm": "frozen"}
    return replace(job, detector=job.detector | {"backbone": backbone})


def test_the_published_recipe_has_no_option() -> None:
    content = tiny_parameters()["train_detection"]
    assert OPTIONS.keys().isdisjoint(content)
    config = build(DetectionConfig, content, "tiny.yaml")
    assert {name: getattr(config, name) for name in OPTIONS} == OPTIONS
    assert OPTIONS.keys() <= as_dict(config).keys()
    assert chosen(config) == {name: value for name, value in as_dict(config).items() if name not in OPTIONS}, "as in a state"


@pytest.mark.parametrize(("name", "value", "problem"), [("fold_norm", 1, "expected true or false, found 1")])
def test_another_value_of_an_option_is_refused(name: str, value: Any, problem: str) -> None:
    content = tiny_parameters()["train_detection"] | {name: value}
    with pytest.raises(ConfigError, match=re.escape(f"tiny.yaml: {name}: {problem}")):
        build(DetectionConfig, content, "tiny.yaml")


@pytest.mark.parametrize("kind", ["detr", "faster_rcnn"])
def test_a_training_with_folded_norms_differs_by_rounding(dataset: Path, tmp_path: Path, kind: str) -> None:
    for name, option in (("plain", False), ("folded", True)):
        changes: dict[str, Any] = {"fold_norm": option, "epochs": 1, "steps": 2}
        plain = job(dataset, tmp_path / name, **changes) if kind == "detr" else job_of(kind, dataset, tmp_path / name, **changes)
        carry_out(with_frozen_norm(plain), ALONE, Silent())
    first, second = (history(tmp_path / name)[0] for name in ("plain", "folded"))
    assert second["train/loss"] == pytest.approx(first["train/loss"], rel=1e-5)
    ours, theirs = weights(tmp_path / "folded"), weights(tmp_path / "plain")
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if ".bn" in name)


def test_folding_is_refused_for_a_detector_without_frozen_norms(dataset: Path, tmp_path: Path) -> None:
    assert tiny_settings().detector.backbone.norm == "group"
    expected = "tiny: train_detection.fold_norm: expected false for a detector without frozen batch norm, found True"
    with pytest.raises(ConfigError, match=expected):
        carry_out(job(dataset, tmp_path, fold_norm=True), ALONE, Silent())
    assert not (tmp_path / "work").exists()
