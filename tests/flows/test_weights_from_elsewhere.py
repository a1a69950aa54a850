"""The commands with checkpoints of torchvision and of Hugging Face's transformers: predict, evaluate, fine-tune and export."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from detr_core.config import as_dict
from detr_core.distributed import ProcessContext
from detr_core.model.checkpoint import Checkpoint, export_checkpoint, load_checkpoint
from detr_core.model.detr.config import DetrConfig
from detr_core.model.faster_rcnn.config import FasterRcnnConfig
from detr_core.model.mask_rcnn.config import MaskRcnnConfig
from detr_core.model.spec import AnyDetectorConfig, build_detector
from detr_core.reporter import Silent
from detr_core.sources.scenes import generate_scenes
from detr_core.structures import Category
from flows import evaluate, export, predict
from tests.conftest import Trained
from tests.flows.test_fine_tuning import fine_tuning
from tests.flows.test_predict import CPU, SMALL, command, well_formed
from tests.jobs.training_process import carry_out
from tests.kinds import DEFORMABLE, FASTER_RCNN, MASK_RCNN
from tests.model.random_weights import randomised
from tests.published_checkpoints import TINY
from tests.published_deformable import TINY as DEFORMABLE_TINY
from tests.recording_reporter import RecordingReporter
from tests.tiny_detector import SCENES

# The anchors are torchvision's, because a state dict does not show them.
SMALL_REGIONS = {"stages": (1, 2, 3, 4), "width": 32, "anchors": (32.0, 64.0, 128.0, 256.0, 512.0), "proposals": 30}
SMALL_REGIONS |= {"sampled_anchors": 32, "sampled_proposals": 16, "head_width": 32}  # type: ignore[dict-item]
FASTER = FasterRcnnConfig(backbone=TINY.backbone, **SMALL_REGIONS)  # type: ignore[arg-type]
MASKS = MaskRcnnConfig(backbone=TINY.backbone, **SMALL_REGIONS, mask_width=16)  # type: ignore[arg-type]

# name -> (the layout, the suffix of its files, the detector, the recipe with which its kind is trained)
KINDS: dict[str, tuple[str, str, AnyDetectorConfig, dict[str, Any] | None]] = {
    "torchvision, Faster R-CNN": ("torchvision", ".pth", FASTER, FASTER_RCNN),
    "torchvision, version 2": ("torchvision", ".pth", replace(FASTER, version=2), FASTER_RCNN),
    "torchvision, Mask R-CNN": ("torchvision", ".pth", MASKS, MASK_RCNN),
    "Hugging Face, DETR": ("hugging-face", ".safetensors", TINY, None),
    "Hugging Face, Deformable DETR": ("hugging-face", ".safetensors", DEFORMABLE_TINY, DEFORMABLE),
}


def written(name: str, folder: Path, ids: list[int]) -> Path:
    """Returns a file as another program would write it: weights without categories, whose number alone shows COCO's ids."""
    layout, suffix, config, _ = KINDS[name]
    torch.manual_seed(0)
    model = randomised(build_detector(config, len(ids)))
    with torch.no_grad():
        for parameter, value in model.named_parameters():
            if parameter.startswith(model.class_heads) and value.dim() > 1:
                value.mul_(12)  # so that some scores are high
    file = folder / f"theirs{suffix}"
    export_checkpoint(Checkpoint(model, tuple(Category(number, "", True) for number in ids), {}), file, layout)
    if suffix == ".pth":
        torch.save(torch.load(file, weights_only=True)["model"], file)
    return file


@pytest.mark.parametrize("name", KINDS)
def test_a_file_from_elsewhere_predicts_and_is_exported_unchanged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, suffix, config, _ = KINDS[name]
    file = written(name, tmp_path, list(range(1, 91) if layout == "torchvision" else range(91)))
    generate_scenes(replace(SCENES, train=1, val=2), 0, tmp_path / "data", 1, Silent())
    out = tmp_path / "predictions"
    words = ["--threshold", 0.5, *SMALL]
    command(predict, monkeypatch, "--checkpoint", file, "--images", tmp_path / "data" / "val", "--out", out, *words)
    content = json.loads((out / "predictions.json").read_text())
    if layout == "torchvision":
        assert len(content["categories"]) == 80, "the classes are COCO's"
    well_formed(content, mask_head=config.kind == "mask_rcnn")

    again = tmp_path / f"again{suffix}"
    command(export, monkeypatch, "--checkpoint", file, "--out", again, "--layout", layout)
    weights: Callable[[Path], Any] = load_file if suffix == ".safetensors" else lambda path: torch.load(path, weights_only=True)
    ours, theirs = weights(again), weights(file)
    ours = ours.get("model", ours)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("name", KINDS)
def test_fine_tuning_replaces_only_the_class_heads(name: str, tmp_path: Path) -> None:
    layout, _, config, recipe = KINDS[name]
    file = written(name, tmp_path, list(range(1, 91) if layout == "torchvision" else range(91)))
    data = tmp_path / "data"
    generate_scenes(replace(SCENES, train=4, val=2), 0, data, 1, Silent())
    job, reporter = fine_tuning(data, tmp_path / "tuned", file), RecordingReporter()
    if recipe is not None:
        job = replace(job, config=job.config | {part: recipe[part] for part in ("loss", "optimizer")})
    carry_out(replace(job, detector=as_dict(config)), ProcessContext(rank=0, size=1, device=CPU), reporter)
    assert any("the class head is new" in message for message in reporter.messages)
    tuned = load_checkpoint(tmp_path / "tuned" / "out" / "checkpoint.pt", CPU)
    source = load_checkpoint(file, CPU).model.state_dict()
    assert tuned.model.config == config
    for key, value in tuned.model.state_dict().items():
        if not key.startswith(tuned.model.class_heads):  # one step moves a weight by about the learning rate
            torch.testing.assert_close(value, source[key], rtol=0, atol=4e-3)


def test_a_file_from_elsewhere_is_evaluated(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = written("torchvision, Faster R-CNN", tmp_path, [1, 2, 3]), tmp_path / "out"
    monkeypatch.setattr(evaluate, "load", lambda _: trained.settings)
    command(evaluate, monkeypatch, "--profile", trained.paths.profile, "--checkpoint", file, "--out", out)
    assert 0 <= json.loads((out / "metrics.json").read_text())["val/AP"] <= 1


def test_an_unknown_layout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written("Hugging Face, DETR", tmp_path, list(range(91)))
    out = tmp_path / "out.pth"
    with pytest.raises(SystemExit):
        command(export, monkeypatch, "--checkpoint", file, "--out", out, "--layout", "torchvision")
    assert not out.exists()
    assert isinstance(load_checkpoint(file, CPU).model.config, DetrConfig)
