"""The learning rates of the parameters."""

from __future__ import annotations

import copy

import pytest
import torch

from detr_core.model.spec import build_detector, detector_config
from detr_core.train.config import OptimizerConfig, SgdConfig
from detr_core.train.optimizer import build_optimizer, load_optimizer
from tests.kinds import RECIPES


def rates(kind: str, config: OptimizerConfig | SgdConfig) -> dict[str, float]:
    model = build_detector(detector_config(RECIPES[kind]["detector"], "tiny"), 3, isthing=[True, True, False])
    optimizer = build_optimizer(model, config)
    names = {parameter: name for name, parameter in model.named_parameters()}
    rate_of = {names[parameter]: parameters["lr"] for parameters in optimizer.param_groups for parameter in parameters["params"]}
    assert rate_of.keys() == set(names.values()), "each once"
    return rate_of


def test_what_places_sampling_points_has_its_own_rate() -> None:
    rate_of = rates("deformable", OptimizerConfig(2e-4, 1e-5, 1e-4, 0.1, sampling_lr=2e-5))
    for name, rate in rate_of.items():
        if name.startswith("backbone.0."):
            assert rate == 1e-5, name
        elif "sampling_offsets" in name or name.startswith("reference_points"):
            assert rate == 2e-5, name
        else:
            assert rate == 2e-4, name
    assert set(rate_of.values()) == {1e-5, 2e-5, 2e-4}


def test_gradient_descent_accumulates_momentum() -> None:
    config = SgdConfig(lr=0.02, backbone_lr=0.01, momentum=0.9, weight_decay=1e-4, clip_norm=None)
    rate_of = rates("faster_rcnn", config)
    assert {name.startswith("backbone.0.") for name, rate in rate_of.items() if rate == 0.01} == {True}
    weight = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(weight.weight)
    optimizer = build_optimizer(weight, config)
    for _ in range(2):  # a gradient of 1: velocities of 1 and 1.9, but for the weight decay
        weight.weight.grad = torch.ones(1, 1)
        optimizer.step()
    assert abs(weight.weight.item() - (1 - 0.02 * 2.9)) < 1e-4


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_a_state_can_be_loaded_for_weights_of_another_memory_layout(kind: str) -> None:
    adamw = OptimizerConfig(lr=0.1, backbone_lr=0.1, weight_decay=0.1, clip_norm=1)
    sgd = SgdConfig(lr=0.1, backbone_lr=0.1, momentum=0.9, weight_decay=0.1, clip_norm=None)
    config = adamw if kind == "adamw" else sgd
    gradients = torch.randn(2, 6, 5, 3, 2, generator=torch.Generator().manual_seed(0))

    def stepped(module: torch.nn.Conv2d, optimizer: torch.optim.Optimizer, gradient: torch.Tensor) -> torch.Tensor:
        module.weight.grad = torch.empty_like(module.weight).copy_(gradient)
        optimizer.step()
        return module.weight.detach().contiguous()

    first = torch.nn.Conv2d(5, 6, (3, 2), bias=False)
    optimizer = build_optimizer(first, config)
    stepped(first, optimizer, gradients[0])
    state = copy.deepcopy(optimizer.state_dict())
    second = copy.deepcopy(first).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    other = build_optimizer(second, config)
    load_optimizer(other, copy.deepcopy(state))
    torch.testing.assert_close(stepped(second, other, gradients[1]), stepped(first, optimizer, gradients[1]))
    assert second.weight.is_contiguous(memory_format=torch.channels_last)
