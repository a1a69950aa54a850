"""The detector's loss: over every decoder layer or only the last one, in float32 for any precision of the network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_core.config import build
from detr_core.loss.config import FocalLossConfig, SoftmaxLossConfig
from detr_core.loss.matcher import match_together
from detr_core.loss.proposals import proposal_loss, proposal_predictions
from detr_core.model.detr.model import Detr
from detr_core.model.spec import build_detector, detector_config
from detr_core.structures import Batch, Padding, SigmoidOutput, Target
from detr_core.train.modules import DetectionTrainingModule
from tests.kinds import DEFORMABLE_TWO_STAGE
from tests.model.small_detr import SMALL

LOSS = SoftmaxLossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=True)
FLOAT = torch.float32


def training_module(
    loss: SoftmaxLossConfig = LOSS, precision: torch.dtype = FLOAT, shared_heads: bool = True
) -> DetectionTrainingModule:
    torch.manual_seed(0)
    return DetectionTrainingModule(
        Detr(replace(SMALL, shared_heads=shared_heads), num_classes=3, mask_head=False), loss, precision
    )


def batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    targets = [
        Target(i, torch.randint(0, 3, (n,), generator=generator), torch.rand(n, 4, generator=generator), None, (48, 60), (48, 60))
        for i, n in enumerate((3, 0, 8))  # the last has more objects than there are queries
    ]
    images = torch.randint(0, 256, (3, 3, 48, 60), generator=generator, dtype=torch.uint8)
    return Batch(images, Padding.none(3, (48, 60), torch.device("cpu")), targets)


@pytest.mark.parametrize("shared_heads", [True, False])
def test_without_auxiliary_losses_the_last_layer_alone_counts(shared_heads: bool) -> None:
    without, normal = (
        training_module(replace(LOSS, auxiliary=False), shared_heads=shared_heads),
        training_module(shared_heads=shared_heads),
    )
    normalizer = without.normalizer([3, 0, 8])
    total, parts = without(batch(), normalizer)
    assert total.item() == pytest.approx((parts["classification"] + 5 * parts["l1"] + 2 * parts["giou"]).item())
    of_all_layers, same = normal(batch(), normalizer)
    assert same == parts
    assert of_all_layers.item() > 1.5 * total.item()
    total.backward()
    assert all(parameter.grad is not None for parameter in without.parameters()), "every process has gradients to share"
    if not shared_heads:
        assert not without.model.get_parameter("class_embed.0.weight").grad.any()  # type: ignore[union-attr]
        assert without.model.get_parameter("class_embed.1.weight").grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("auxiliary", [True, False])
def test_the_proposals_of_a_two_stage_detector_are_always_trained(auxiliary: bool) -> None:
    torch.manual_seed(0)
    recipe = DEFORMABLE_TWO_STAGE
    loss = build(FocalLossConfig, {**recipe["loss"], "auxiliary": auxiliary}, "a.yaml")
    module = DetectionTrainingModule(build_detector(detector_config(recipe["detector"], "a.yaml"), 3), loss, FLOAT)
    output, _, total, parts = module.detect(batch(), module.normalizer([3, 0, 8]))
    assert isinstance(output, SigmoidOutput)
    assert output.proposals is not None
    predictions = proposal_predictions(output.proposals, batch().targets)
    (matches,) = match_together([predictions], loss)
    of_proposals = proposal_loss(predictions, matches, module.normalizer([3, 0, 8]), loss)
    own = 2 * parts["objectness"] + 5 * parts["proposals"] + 2 * parts["proposals_giou"]
    assert own.item() == pytest.approx(of_proposals.total.item(), rel=1e-5)
    of_last = (2 * parts["classification"] + 5 * parts["l1"] + 2 * parts["giou"] + own).item()
    assert total.item() > 1.2 * of_last if auxiliary else total.item() == pytest.approx(of_last, rel=1e-5)
    total.backward()
    assert all(parameter.grad is not None for parameter in module.parameters()), "every process has gradients to share"
    assert module.model.get_parameter("class_embed.2.weight").grad.any()  # type: ignore[union-attr]


def test_matching_and_losses_are_float32_in_bfloat16() -> None:
    module = training_module(precision=torch.bfloat16)
    dtypes: list[torch.dtype] = []
    module.model.transformer.encoder.layers[0].linear1.register_forward_hook(
        lambda *arguments: dtypes.append(arguments[-1].dtype)
    )  # type: ignore[union-attr]
    total, parts = module(batch(), module.normalizer([3, 0, 8]))
    assert dtypes == [torch.bfloat16], "the network does run in it"
    assert {value.dtype for value in (total, *parts.values())} == {FLOAT}
    expected, _ = training_module()(batch(), module.normalizer([3, 0, 8]))
    assert total.item() == pytest.approx(expected.item(), rel=0.03)
    total.backward()
    assert {p.grad.dtype for p in module.parameters() if p.grad is not None} == {FLOAT}
