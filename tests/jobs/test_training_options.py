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
from detr_core.train.config import CompileConfig, DetectionConfig
from tests.conftest import tiny_parameters, tiny_settings
from tests.jobs.training_jobs import (
    ALONE,
    InterruptedAt,
    assert_identical,
    history,
    job,
    job_of,
    mask_job,
    weights,
)
from tests.jobs.training_process import carry_out
from tests.recording_reporter import RecordingReporter

OPTIONS: dict[str, Any] = {
    "fold_norm": False,
    "ema_decay": None,
    "activation_checkpointing": False,
    "compile": None,
    "distribution": "random",
}


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


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("fold_norm", 1, "expected true or false, found 1"),
        ("activation_checkpointing", "yes", "expected true or false, found 'yes'"),
        ("compile", True, "expected a mapping with multiple, backend, found True"),
        ("compile", {"multiple": 0}, ""),
        ("compile", {"multiple": 64, "backend": "fast"}, ""),
        ("precision", "float16", "expected one of 'float32', 'tf32', 'bfloat16', found 'float16'"),
        ("ema_decay", 1, "expected above 0 and below 1, or null, found 1.0"),
        ("ema_decay", True, "expected a finite number, found True"),
    ],
)
def test_another_value_of_an_option_is_refused(name: str, value: Any, problem: str) -> None:
    content = tiny_parameters()["train_detection"] | {name: value}
    with pytest.raises(ConfigError, match=re.escape(f"tiny.yaml: {name}{f': {problem}' if problem else '.'}")):
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


@pytest.mark.parametrize(
    "kind", ["detr", "frozen mask head", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("deformable", "upsnet"))]
)
def test_a_training_with_an_average_resumes_bit_for_bit_and_saves_the_average(dataset: Path, tmp_path: Path, kind: str) -> None:
    changes: dict[str, Any] = {"ema_decay": 0.9}
    if kind == "frozen mask head":
        carry_out(job(dataset, tmp_path / "detector", steps=1, targets="panoptic"), ALONE, Silent())

    def training(folder: str, **more: Any) -> TrainingJob:
        if kind == "frozen mask head":
            return mask_job(dataset, tmp_path / folder, tmp_path / "detector", **more)
        return job(dataset, tmp_path / folder, **more) if kind == "detr" else job_of(kind, dataset, tmp_path / folder, **more)

    carry_out(training("whole", **changes), ALONE, Silent())
    for step in (1, 3, 6):
        with pytest.raises(KeyboardInterrupt):
            carry_out(training("interrupted", **changes), ALONE, InterruptedAt(step))
    state = torch.load(tmp_path / "interrupted/work/state.pt", weights_only=True)["model"]
    carry_out(training("interrupted", **changes), ALONE, Silent())
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")
    carry_out(training("plain"), ALONE, Silent())
    losses = [[record.get("train/loss") for record in history(tmp_path / name)] for name in ("whole", "plain")]
    assert losses[0] == losses[1], "the average has no influence on the training"
    averaged, plain = weights(tmp_path / "whole"), weights(tmp_path / "plain")
    assert list(averaged) == list(plain)
    changed = [name for name in plain if not torch.equal(averaged[name], plain[name])]
    learned = sum(name.startswith("average.") for name in state)
    assert 0.9 * learned < len(changed) <= learned, "a few weights have no gradient in the first steps"


def test_a_training_continues_with_activation_checkpointing_and_is_the_same(dataset: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"dropout": 0.3, "accumulation": 2}
    carry_out(job(dataset, tmp_path / "whole", **changes), ALONE, Silent())
    with pytest.raises(KeyboardInterrupt):
        carry_out(job(dataset, tmp_path / "smaller", **changes), ALONE, InterruptedAt(3))
    reporter = RecordingReporter()
    carry_out(job(dataset, tmp_path / "smaller", activation_checkpointing=True, **changes), ALONE, reporter)
    assert reporter.messages == ["resuming after step 2"], "as after a lack of memory"
    assert_identical(tmp_path / "whole", tmp_path / "smaller")


def test_a_compiled_training_says_what_was_compiled_and_pads_to_multiples(dataset: Path, tmp_path: Path) -> None:
    torch.compiler.reset()
    reporter = RecordingReporter()
    options: dict[str, Any] = {"compile": CompileConfig(multiple=16, backend="eager"), "epochs": 1}
    carry_out(job(dataset, tmp_path / "compiled", **options), ALONE, reporter)
    (note,) = reporter.messages
    assert re.fullmatch(r"torch\.compile \(eager\) has compiled [1-9]\d* graphs of \d+ modules, with 0 breaks", note)
    carry_out(job(dataset, tmp_path / "plain", epochs=1), ALONE, Silent())
    assert_identical(tmp_path / "compiled", tmp_path / "plain")  # the images are of one size, which is a multiple


def test_tf32_on_a_cpu_is_float32(dataset: Path, tmp_path: Path) -> None:
    reporter = RecordingReporter()
    carry_out(job(dataset, tmp_path / "tf32", precision="tf32", epochs=1), ALONE, reporter)
    carry_out(job(dataset, tmp_path / "float32", epochs=1), ALONE, Silent())
    assert reporter.messages == ["precision tf32 is for GPUs; a CPU computes in float32"]
    assert_identical(tmp_path / "tf32", tmp_path / "float32")
