"""The backbone's initial weights from torchvision or from a file, the errors without them, and frozen batch norm."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torchvision.ops import FrozenBatchNorm2d

from detr_core.config import ConfigError
from detr_core.model.common.backbone import Backbone, FrozenBatchNorm, load_imagenet_weights
from detr_core.model.common.config import BackboneConfig
from detr_core.model.common.files import CheckpointError
from tests.hostile import Hostile

R18 = BackboneConfig("resnet18", dilation=False, weights="imagenet", norm="frozen", frozen_stages=2)
PUBLISHED = "resnet18-f37072fd.pth"  # the name under which torchvision keeps the file


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the empty folder where torchvision keeps its downloads; there is no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    def refuse(*_: Any, **__: Any) -> Any:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    folder = tmp_path / "home" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def classifier() -> dict[str, torch.Tensor]:
    """Returns the content of torchvision's file, with the layer that detection leaves out and the counters of batch norm."""
    torch.manual_seed(3)
    state = torchvision.models.resnet18(weights=None).state_dict()
    return {name: torch.rand_like(value) if value.is_floating_point() else value for name, value in state.items()}


def loaded(config: BackboneConfig) -> dict[str, torch.Tensor]:
    backbone = Backbone(config)
    load_imagenet_weights(backbone, config)
    return backbone.body.state_dict()


@pytest.mark.parametrize("local", [False, True])
def test_weights_come_from_torchvision_or_a_file(hub: Path, tmp_path: Path, local: bool) -> None:
    state = classifier()
    file = tmp_path / "mine.pth" if local else hub / PUBLISHED
    torch.save(state, file)
    backbone = loaded(replace(R18, weights=str(file)) if local else R18)
    assert {name for name in state.keys() - backbone.keys() if "num_batches_tracked" not in name} == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, state[name]) for name, value in backbone.items())


def test_unavailable_weights_are_reported_in_one_line(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"torchvision's ImageNet weights of resnet18 can't be downloaded .*no network.*give the path"
    ):
        loaded(R18)
    with pytest.raises(ConfigError, match=r"detector\.backbone\.weights: expected 'imagenet', null or a file, found 'none.pth'"):
        loaded(replace(R18, weights="none.pth"))
    state = classifier()
    torch.save(state, tmp_path / "r18.pth")
    with pytest.raises(ConfigError, match=r"r18\.pth doesn't fit resnet34: missing \['layer1.2.bn1.bias'"):
        loaded(replace(R18, name="resnet34", weights=str(tmp_path / "r18.pth")))
    torch.save(state | {"conv1.weight": torch.zeros(1)}, tmp_path / "shape.pth")
    with pytest.raises(ConfigError, match=r"with another shape \['conv1.weight'\]"):
        loaded(replace(R18, weights=str(tmp_path / "shape.pth")))
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match=r"list\.pth: expected a torchvision state dict"):
        loaded(replace(R18, weights=str(tmp_path / "list.pth")))


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Hostile(os.mkdir, str(tmp_path / "ran"))}, tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match="without running code"):
        loaded(replace(R18, weights=str(tmp_path / "hostile.pth")))
    assert not (tmp_path / "ran").exists()


def test_frozen_batch_norm_is_torchvisions() -> None:
    theirs, ours = FrozenBatchNorm2d(6), FrozenBatchNorm(6)
    values = {name: torch.rand_like(value) + 0.5 for name, value in theirs.state_dict().items()}
    convolution = torch.nn.Conv2d(3, 6, 3)
    other, results = copy.deepcopy(convolution), []
    x = torch.randn(2, 3, 8, 9)
    for norm, layer in ((theirs, convolution), (ours, other)):
        norm.load_state_dict(values)
        y = norm(layer(x)).relu()
        y.square().sum().backward()
        results.append((y, layer.weight.grad))
    torch.testing.assert_close(results[1], results[0])
