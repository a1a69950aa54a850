"""Frozen batch norm folded into convolutions: the same results and gradients up to rounding, and the same state dict."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from detr_core.model.common.backbone import Backbone, FrozenBatchNorm
from detr_core.model.common.config import BackboneConfig
from detr_core.model.spec import build_detector, detector_config
from detr_core.train.folding import fold_norms
from tests.kinds import FASTER_RCNN

CLOSE = 1e-5  # relative to the largest value, in float32


def with_statistics(model: nn.Module) -> nn.Module:
    """Gives every frozen norm values like those of a trained network."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm):
            for name, low, high in (
                ("weight", 0.5, 1.5),
                ("bias", -0.2, 0.2),
                ("running_mean", -0.2, 0.2),
                ("running_var", 0.5, 1.5),
            ):
                getattr(module, name).uniform_(low, high, generator=generator)
    return model


def backbone(name: str = "resnet18", dilation: bool = False) -> Backbone:
    torch.manual_seed(0)
    config = BackboneConfig(name, dilation, weights=None, norm="frozen", frozen_stages=1)  # type: ignore[arg-type]
    built = with_statistics(Backbone(config))
    assert isinstance(built, Backbone)
    return built


def maps_and_gradients(model: Backbone, images: Tensor) -> dict[str, Tensor]:
    maps = model(images)
    sum(level.square().mean() for level in maps).backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return {f"map {number}": level.detach() for number, level in enumerate(maps)} | gradients


@pytest.mark.parametrize(
    ("name", "dilation", "norms"),
    [("resnet18", False, 20), ("resnet50", True, 53), ("small", False, 11), ("small_deep", True, 19)],
)
def test_folding_changes_maps_and_gradients_by_rounding_only(name: str, dilation: bool, norms: int) -> None:
    plain = backbone(name, dilation)
    folded = copy.deepcopy(plain)
    assert fold_norms(folded) == norms == sum(isinstance(module, FrozenBatchNorm) for module in plain.modules())
    images = torch.randn(2, 3, 72, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for found, expected in zip(folded(images), plain(images), strict=True):
            assert 0 < (found - expected).abs().max() <= CLOSE * expected.abs().max()
    # Gradients are compared in float64: in float32 rounding can change on which side of 0 a ReLU's input is.
    ours, theirs = (maps_and_gradients(model.double(), images.double()) for model in (folded, plain))
    assert ours.keys() == theirs.keys()
    assert "body.layer4.0.conv1.weight" in theirs
    for key, value in theirs.items():
        assert (ours[key] - value).abs().max() <= 1e-12 * value.abs().max(), key


def test_the_state_dict_stays_and_later_values_count() -> None:
    plain, folded, images = backbone(), backbone(), torch.randn(1, 3, 64, 64)
    fold_norms(folded)
    copied = copy.deepcopy(folded)
    state = plain.state_dict()
    assert list(folded.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in folded.state_dict().items())
    changed = {name: value * 1.1 for name, value in state.items()}
    plain.load_state_dict(changed)
    folded.load_state_dict(changed)
    torch.testing.assert_close(folded(images), plain(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(copied(images), folded(images), rtol=1e-2, atol=1e-2)


def test_only_a_convolution_that_a_frozen_norm_follows_is_changed() -> None:
    recipe = {**FASTER_RCNN["detector"], "backbone": {**FASTER_RCNN["detector"]["backbone"], "norm": "frozen"}}
    detector = build_detector(detector_config(recipe, "tiny"), 3)
    changed = [name for name, module in detector.named_modules() if "forward" in vars(module)]
    assert changed == []
    assert fold_norms(detector) == 11
    changed = [name for name, module in detector.named_modules() if "forward" in vars(module)]
    assert len(changed) == 22
    assert all(name.startswith("backbone.0.body.") for name in changed)
    group = build_detector(detector_config(FASTER_RCNN["detector"], "tiny"), 3)
    assert fold_norms(group) == 0
