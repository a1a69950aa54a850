"""Activation checkpointing: the same loss and gradients, bit for bit, with fewer saved activations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detr_core.config import build
from detr_core.loss.config import SoftmaxLossConfig
from detr_core.model.common.backbone import Backbone
from detr_core.model.detr.model import Detr
from detr_core.model.spec import build_detector, detector_config
from detr_core.structures import Batch
from detr_core.train.config import DetectionConfig
from detr_core.train.modules import TrainingModule, detector_training_module
from detr_core.train.recomputation import recompute_activations
from tests.conftest import tiny_parameters
from tests.kinds import RECIPES
from tests.model.small_detr import SMALL
from tests.train.test_modules import batch

LOSS = SoftmaxLossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=True)


def detr() -> TrainingModule:
    torch.manual_seed(0)
    backbone = replace(SMALL.backbone, frozen_stages=1)
    model = Detr(replace(SMALL, dropout=0.3, encoder_layers=2, backbone=backbone), num_classes=3, mask_head=False)
    return detector_training_module(model, LOSS, torch.float32).train()


def module_of(kind: str) -> TrainingModule:
    recipe: dict[str, Any] = RECIPES[kind]
    torch.manual_seed(0)
    content = tiny_parameters()["train_detection"] | {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    model = build_detector(detector_config({**recipe["detector"]}, "tiny"), 3)
    return detector_training_module(model, build(DetectionConfig, content, "tiny").loss, torch.float32).train()


def step(module: TrainingModule, data: Batch) -> tuple[Tensor, dict[str, Tensor], int]:
    """Returns the loss, the gradients, and how many bytes the forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}
    weights = {value.untyped_storage().data_ptr() for value in module.state_dict().values()}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        total, _ = module(data, module.normalizer([len(target.labels) for target in data.targets]))
    total.backward()
    gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    gradients["the next random number"] = torch.rand(1)
    return total.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize("build_module", [detr, lambda: module_of("deformable"), lambda: module_of("faster_rcnn")])
def test_gradients_are_the_same_bit_for_bit_and_less_is_kept(build_module: Callable[[], TrainingModule]) -> None:
    plain, recomputing = build_module(), build_module()
    recompute_activations(recomputing.model)
    assert list(plain.state_dict()) == list(recomputing.state_dict())
    loss, gradients, kept = step(plain, batch())
    other_loss, other_gradients, other_kept = step(recomputing, batch())
    assert torch.equal(loss, other_loss)
    assert gradients.keys() == other_gradients.keys()
    assert all(torch.equal(value, other_gradients[name]) for name, value in gradients.items())
    assert other_kept < 0.85 * kept


def test_blocks_and_layers_are_those_of_the_network() -> None:
    model = detr().model
    backbone = model.backbone[0]
    assert isinstance(backbone, Backbone)
    assert len(backbone.blocks()) == 4
    assert [type(layer).__name__ for layer in model.layers()] == ["EncoderLayer"] * 2 + ["DecoderLayer"] * 2
    assert all(isinstance(block, nn.Module) for block in backbone.blocks())
