"""Published weights of Deformable DETR predict, and a training starts from them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detr_core.config import as_dict
from detr_core.distributed import ProcessContext
from detr_core.model.checkpoint import load_checkpoint
from detr_core.model.deformable.config import DeformableConfig
from detr_core.reporter import Silent
from detr_core.sources.scenes import generate_scenes
from flows import predict
from tests.flows.test_fine_tuning import fine_tuning
from tests.flows.test_predict import SMALL, command, well_formed
from tests.jobs.training_process import carry_out
from tests.kinds import DEFORMABLE
from tests.published_checkpoints import reference_arguments
from tests.published_deformable import TINY, TWO_STAGE, published_state_dict
from tests.recording_reporter import RecordingReporter
from tests.tiny_detector import SCENES

CPU = torch.device("cpu")


@pytest.fixture(params=[TINY, TWO_STAGE], ids=["plain", "two-stage"])
def config(request: pytest.FixtureRequest) -> DeformableConfig:
    """Returns the configuration of the detector in the published file."""
    value: DeformableConfig = request.param
    return value


@pytest.fixture
def published_file(config: DeformableConfig, tmp_path: Path) -> Path:
    """Returns the file of a detector whose scores are near 0.5."""
    state = published_state_dict(config)
    for name, value in state.items():
        if "class_embed." in name and name.endswith(".bias"):
            value.detach().zero_()
    torch.save({"model": state, "args": reference_arguments(num_queries=config.queries)}, tmp_path / "deformable.pth")
    return tmp_path / "deformable.pth"


def test_published_deformable_weights_predict(published_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise, out = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8), tmp_path / "out"
    Image.fromarray(noise).save(tmp_path / "noise.png")
    options = ["--images", tmp_path / "noise.png", "--out", out, "--threshold", 0.5, *SMALL]
    command(predict, monkeypatch, "--checkpoint", published_file, *options)
    content = json.loads((out / "predictions.json").read_text())
    assert len(content["categories"]) == 80
    well_formed(content, mask_head=False)


def test_published_deformable_weights_are_fine_tuned(config: DeformableConfig, published_file: Path, tmp_path: Path) -> None:
    generate_scenes(replace(SCENES, train=4), 0, tmp_path / "data", 1, Silent())
    job = fine_tuning(tmp_path / "data", tmp_path / "tuned", published_file)
    recipe, reporter = {name: DEFORMABLE[name] for name in ("loss", "optimizer")}, RecordingReporter()
    job = replace(job, config=job.config | recipe, detector=as_dict(config))
    carry_out(job, ProcessContext(rank=0, size=1, device=CPU), reporter)
    assert any("all other weights come from the checkpoint, which had 80 classes" in message for message in reporter.messages)
    assert load_checkpoint(tmp_path / "tuned" / "out" / "checkpoint.pt", CPU).model.config == config
