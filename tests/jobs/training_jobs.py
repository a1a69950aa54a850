"""Training jobs of the tiny profile, their results, and reporters that interrupt them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from detr_core.config import as_dict
from detr_core.distributed import ProcessContext
from detr_core.jobs.training import TrainingJob
from detr_core.model.checkpoint import load_checkpoint
from detr_core.model.spec import kind_of
from detr_core.reporter import Silent
from tests.conftest import tiny_settings
from tests.kinds import RECIPES
from tests.recording_reporter import RecordingReporter

CPU = torch.device("cpu")


ANEW = "starting from the first step, because the interrupted training had other parameters or other data"


ALONE = ProcessContext(rank=0, size=1, device=CPU)


def job(dataset: Path, folder: Path, dropout: float = 0.0, **changes: Any) -> TrainingJob:
    settings = tiny_settings()
    assert settings.train_detection.augmentation.flip > 0
    detector = replace(settings.detector, dropout=dropout)
    usual: dict[str, Any] = {"targets": "instances", "epochs": 2, "batch_size": 8, "checkpoint_every": 2}
    config = replace(settings.train_detection, **usual | changes)
    work, out = str(folder / "work"), str(folder / "out")
    evaluate = as_dict(settings.evaluate)
    return TrainingJob(
        "detection", as_dict(config), as_dict(detector), None, str(dataset), work, out, 0, "tiny", evaluate=evaluate
    )


def job_of(kind: str, dataset: Path, folder: Path, **changes: Any) -> TrainingJob:
    """Returns the same training of another kind of detector."""
    plain, recipe = job(dataset, folder, **changes), RECIPES[kind]
    config = plain.config | {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    if "panoptic" in kind_of(recipe["detector"]["kind"]).capabilities:
        config["targets"] = "panoptic"
    return replace(plain, config=config, detector=recipe["detector"])


def mask_job(dataset: Path, folder: Path, trained: Path, **changes: Any) -> TrainingJob:
    """Returns the training of the mask head on the detector that another job has trained in the folder `trained`."""
    config = as_dict(replace(tiny_settings().train_panoptic, **{"epochs": 2, "batch_size": 8, "checkpoint_every": 2} | changes))
    work, out = str(folder / "work"), str(folder / "out")
    init, evaluate = str(trained / "out" / "checkpoint.pt"), as_dict(tiny_settings().evaluate)
    return TrainingJob("panoptic", config, None, init, str(dataset), work, out, 0, "tiny", evaluate=evaluate)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "out" / "checkpoint.pt", CPU).model.state_dict()


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "history.jsonl").read_text().splitlines()]


def assert_identical(one: Path, other: Path) -> None:
    """Asserts that two trainings have the same weights and the same history, bit for bit."""
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert history(one) == history(other)
    for name in ("checkpoint.pt", "best.pt", "metrics.json"):
        assert (one / "out" / name).read_bytes() == (other / "out" / name).read_bytes(), name


def assert_same_training(one: Path, other: Path, relative: float = 1e-5, weight: float = 2e-4) -> None:
    for a, b in zip(history(one), history(other), strict=True):
        losses = {name: value for name, value in a.items() if name.startswith(("train/", "val/"))}
        assert losses == pytest.approx({name: b[name] for name in losses}, rel=relative, abs=1e-7)
    ours, theirs = weights(one), weights(other)  # AdamW makes much of little: of a small gradient's last bits too
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=weight / 2, atol=weight)


class SignalledAt(Silent):
    """A reporter that sends this process a signal when a step is recorded."""

    def __init__(self, step: int, number: int, reporter: RecordingReporter) -> None:
        self.step, self.number, self.message = step, number, reporter.message  # type: ignore[method-assign]

    def metrics(self, values: Any, step: int) -> None:
        if step == self.step:
            os.kill(os.getpid(), self.number)


class InterruptedAt(Silent):
    def __init__(self, step: int) -> None:
        self.step = step

    def metrics(self, values: Any, step: int) -> None:
        if step == self.step:
            raise KeyboardInterrupt
