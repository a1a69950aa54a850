"""The rows of the kinds of detectors: they agree with the models, pick only the code of one kind, and refuse an unknown kind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from detr_core.config import ConfigError, as_dict
from detr_core.model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from detr_core.model.common.config import BackboneConfig
from detr_core.model.default_lengths import Duration
from detr_core.model.spec import (
    KINDS,
    AnyDetectorConfig,
    AnyLossConfig,
    Capability,
    build_detector,
    detector_config,
    kinds_with,
    object_count,
)
from detr_core.structures import Category, Padding
from detr_core.studies.evaluating import EVALUATING
from detr_core.train.optimizer import SAMPLING
from tests import kinds
from tests.tiny_detector import detector

ROOT = Path(__file__).resolve().parents[2]
CATEGORIES = (Category(1, "cell", True),)
UNKNOWN = f"detector.kind: expected one of {', '.join(map(repr, KINDS))}, found 'unheard of'"


def section(kind: str) -> dict[str, Any]:
    return as_dict(detector(CATEGORIES, False).config) if kind == "detr" else dict(kinds.RECIPES[kind]["detector"])


def test_the_types_of_configurations_are_those_of_the_rows() -> None:
    assert {name: kind.config.kind for name, kind in KINDS.items()} == {name: name for name in KINDS}
    assert set(get_args(AnyDetectorConfig)) == {kind.config for kind in KINDS.values()}
    assert set(get_args(AnyLossConfig)) == {kind.loss for kind in KINDS.values()}


def test_every_capability_is_one_of_a_kind() -> None:
    assert set(get_args(Capability)) == set().union(*(kind.capabilities for kind in KINDS.values()))
    assert set().union(*(study.config.NEEDS for study in EVALUATING.values())) <= set(get_args(Capability))
    assert kinds_with("decoder_layers").startswith("'detr' or 'deformable'")
    assert kinds_with() == " or ".join(map(repr, KINDS))


@pytest.mark.parametrize("name", KINDS)
def test_a_row_agrees_with_its_detector(name: str) -> None:
    kind, config = KINDS[name], detector_config(section(name), "tiny")
    model = build_detector(config, 3, isthing=[True, False, True]).eval()
    with torch.inference_mode():
        output = model(torch.rand(1, 3, 64, 64), Padding.none(1, (64, 64), torch.device("cpu")))
    assert type(output).__name__ == kind.output
    assert ("no_object" in kind.capabilities) == (kind.output == "SoftmaxOutput")
    if "decoder_layers" in kind.capabilities:
        assert len(output.logits) == section(name)["decoder_layers"]
    if kind.objects == "queries":
        assert output.boxes.shape[2] == object_count(config)
    names = [parameter for parameter, _ in model.named_parameters()]
    assert ("sampling_lr" in kind.capabilities) == any(part in parameter for parameter in names for part in SAMPLING)
    if "mask_head" in kind.capabilities:
        assert build_detector(config, 3, "none").has_mask_head
    else:
        with pytest.raises(ConfigError, match=rf"detector\.kind: expected 'detr'.*, which can have a mask head, found '{name}'"):
            build_detector(config, 3, "none", isthing=[True, False, True])


@dataclass(frozen=True)
class UnknownConfig:
    backbone: BackboneConfig
    queries: int
    kind: str = "unheard of"


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_has_a_length_of_fine_tuning_if_it_can_be_fine_tuned(name: str) -> None:
    kind = KINDS[name]
    assert (kind.length.tuned is not None) == ("init" in kind.capabilities)
    assert 0 < kind.length.drop < 1


@pytest.mark.parametrize(("images", "epochs"), [(1, 100), (1000, 40), (100_000, 12)])
def test_a_training_shows_the_same_number_of_images_within_its_limits(images: int, epochs: int) -> None:
    assert Duration(40_000, 12, 100).epochs(images) == epochs


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    model = detector(CATEGORIES, mask_head=False)
    unknown = UnknownConfig(model.config.backbone, 5)
    with pytest.raises(ConfigError, match=re.escape(UNKNOWN)):
        build_detector(unknown, 3)
    with pytest.raises(ConfigError, match=re.escape(UNKNOWN)):
        object_count(unknown)
    save_checkpoint(tmp_path / "a.pt", model, CATEGORIES, {})
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    content["detector"] = asdict(unknown)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=re.escape(UNKNOWN)):
        load_checkpoint(tmp_path / "a.pt", torch.device("cpu"))


# A process for each kind, which has imported what all kinds need, and then trains, writes and reads a detector of its kind.
OF_EACH_KIND = """
import json, os, sys, torch
from pathlib import Path
import detr_core.jobs.train_detection, detr_core.jobs.evaluate, detr_core.studies.measurements.decoder_nms
from detr_core.model.checkpoint import load_checkpoint, save_checkpoint
from detr_core.model.spec import KINDS, build_detector, detector_config
from detr_core.structures import Category, Padding
from detr_core.train.modules import detector_training_module
file = Path(sys.argv[1])
for section, loss in json.loads(sys.argv[2]):
    if os.fork() > 0:
        assert os.wait()[1] == 0
        continue
    model = build_detector(detector_config(section, "tiny"), 2, isthing=[True, False])
    detector_training_module(model, KINDS[section["kind"]].loss(**loss), torch.float32)
    save_checkpoint(file, model, (Category(1, "cell", True), Category(2, "sky", False)), {})
    load_checkpoint(file, torch.device("cpu"))
    print(json.dumps([name for name in sys.modules if name.startswith("detr_core.model.")]))
    break
"""


def test_a_process_imports_the_model_of_its_own_kind_only(tmp_path: Path) -> None:
    losses: dict[str, Any] = {name: kinds.RECIPES[name]["loss"] for name in KINDS if name != "detr"}
    losses["detr"] = {"classification": 1, "l1": 5, "giou": 2, "no_object": 0.1, "auxiliary": True}
    sections = json.dumps([[section(name), losses[name]] for name in KINDS])
    command = [sys.executable, "-c", OF_EACH_KIND, str(tmp_path / "a.pt"), sections]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for name, line in zip(KINDS, lines, strict=True):
        modules = json.loads(line)
        of_kind = tuple(f"detr_core.model.{folder}." for folder in (name, KINDS[name].builds_on))
        assert [module for module in modules if module.startswith(of_kind) and not module.endswith(".config")] != []
        folders = {*KINDS, *(kind.builds_on for kind in KINDS.values())} - {name, KINDS[name].builds_on, "common"}
        foreign = tuple(f"detr_core.model.{folder}." for folder in folders)
        assert [module for module in modules if module.startswith(foreign) and not module.endswith(".config")] == []
