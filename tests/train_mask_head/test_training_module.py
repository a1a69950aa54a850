"""Edge cases of the mask head's loss, on a frozen detector and jointly with it: no target, no mask, one pixel, more objects than
queries, and equality with micro-batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_core.loss.config import SoftmaxLossConfig
from detr_core.loss.criterion import Normalizer
from detr_core.model.detr.model import Detr
from detr_core.structures import Batch, Padding, Target
from detr_core.train.modules import DetectionTrainingModule, TrainingModule
from detr_core.train_mask_head.config import MaskLossConfig
from detr_core.train_mask_head.training_module import FrozenTrainingModule, JointTrainingModule
from tests.model.small_detr import SMALL

SET_LOSS = SoftmaxLossConfig(classification=1, l1=5, giou=2, no_object=0.1, auxiliary=True)
LOSS = MaskLossConfig(focal=1, dice=1, alpha=0.25, gamma=2)
SIZE = (48, 60)


def frozen_module(loss: MaskLossConfig = LOSS) -> FrozenTrainingModule:
    torch.manual_seed(0)
    return FrozenTrainingModule(Detr(SMALL, num_classes=3, mask_head=True), loss, torch.float32)


def joint(loss: SoftmaxLossConfig = SET_LOSS, dropout: float = 0.0) -> JointTrainingModule:
    """The same model as that of `frozen_module`, which learns as a whole."""
    torch.manual_seed(0)
    return JointTrainingModule(Detr(replace(SMALL, dropout=dropout), num_classes=3, mask_head=True), loss, LOSS, torch.float32)


def box_alone(target_of_image: Target, *which: int) -> Target:
    """The target with objects that have no mask."""
    assert target_of_image.masks is not None
    masks = target_of_image.masks.clone()
    masks[list(which)] = False
    return replace(target_of_image, masks=masks)


def target(objects: list[tuple[int, int, int, int]]) -> Target:
    """Returns a target whose objects fill their boxes. objects: (top, left, height, width) in pixels."""
    masks = torch.zeros(len(objects), *SIZE, dtype=torch.bool)
    boxes = torch.zeros(len(objects), 4)
    for mask, box, (top, left, height, width) in zip(masks, boxes, objects, strict=True):
        mask[top : top + height, left : left + width] = True
        center = torch.tensor([left + width / 2, top + height / 2, width, height])
        box[:] = center / torch.tensor([SIZE[1], SIZE[0], SIZE[1], SIZE[0]])
    return Target(0, torch.zeros(len(objects), dtype=torch.int64), boxes, masks, SIZE, SIZE)


def batch(*targets: Target) -> Batch:
    images = torch.randint(0, 256, (len(targets), 3, *SIZE), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    return Batch(images, Padding.none(len(targets), SIZE, torch.device("cpu")), list(targets))


def gradients(training_module: TrainingModule) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in training_module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("targets", [[target([]), target([])], [box_alone(target([(3, 4, 20, 30)]), 0), target([])]])
def test_images_without_masks_have_no_mask_loss_and_zero_gradients(targets: list[Target]) -> None:
    training_module = frozen_module()
    total, parts = training_module(batch(*targets), training_module.normalizer([0, 0]))
    total.backward()
    assert (total.item(), float(parts["focal"]), float(parts["dice"])) == (0, 0, 0)
    actual = gradients(training_module)
    assert set(actual) == {name for name, p in training_module.named_parameters() if p.requires_grad}, (
        "every process has some to share"
    )
    assert all(not gradient.any() for gradient in actual.values())


@pytest.mark.parametrize("objects", [[(20, 30, 1, 1)], [(0, 0, 48, 1)], [(5 * i, 6 * i, 4, 5) for i in range(9)]])
def test_extreme_objects_leave_finite_losses_and_gradients(objects: list[tuple[int, int, int, int]]) -> None:
    training_module = frozen_module()
    total, parts = training_module(batch(target(objects)), training_module.normalizer([len(objects)]))
    total.backward()
    matched = min(len(objects), SMALL.queries)
    assert 0 < float(parts["dice"]) <= matched / len(objects), "each matched mask adds at most 1, divided by all targets"
    assert float(parts["focal"]) > 0
    assert total.item() == pytest.approx((parts["focal"] + parts["dice"]).item())
    assert all(gradient.isfinite().all() for gradient in gradients(training_module).values())


def test_pieces_add_up_to_the_whole_also_when_one_is_empty() -> None:
    # What a micro-batch and a process do: the normaliser is of all of them.
    whole, pieces = frozen_module(), frozen_module()
    targets = [target([(3, 4, 20, 30), (30, 10, 9, 9)]), target([]), target([(10, 10, 12, 8)])]
    everything = batch(*targets)
    normalizer = whole.normalizer([2, 0, 1])
    assert normalizer == Normalizer.of([2, 0, 1], SMALL.queries, 0.1)
    expected, _ = whole(everything, normalizer)
    expected.backward()
    totals = []
    for i in range(3):
        piece = Batch(everything.images[i : i + 1], Padding.of(everything.padding.mask[i : i + 1]), [targets[i]])
        total, _ = pieces(piece, normalizer)
        total.backward()
        totals.append(total)
    torch.testing.assert_close(torch.stack(totals).sum(), expected)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(pieces)[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("off", ["focal", "dice"])
def test_a_term_that_is_off_is_not_in_the_sum(off: str) -> None:
    training_module = frozen_module(replace(LOSS, **{off: 0.0}))
    total, parts = training_module(batch(target([(3, 4, 20, 30)])), training_module.normalizer([1]))
    assert total.item() == pytest.approx(float(parts["dice" if off == "focal" else "focal"]))


def test_nothing_of_the_frozen_detector_is_random_or_moves() -> None:
    torch.manual_seed(0)
    model = Detr(replace(SMALL, dropout=0.5), num_classes=3, mask_head=True)
    training_module = FrozenTrainingModule(model, LOSS, torch.float32).train()
    assert not any(module.training for module in training_module.modules())
    one = batch(target([(3, 4, 20, 30)]))
    assert torch.equal(
        training_module(one, training_module.normalizer([1]))[0], training_module(one, training_module.normalizer([1]))[0]
    ), "no dropout"
    learning = {name.split(".")[1] for name, p in training_module.named_parameters() if p.requires_grad}
    assert learning == {"bbox_attention", "mask_head"}


def test_an_object_without_a_mask_is_matched_and_counted_but_has_no_mask_loss() -> None:
    training_module = frozen_module()
    both = target([(3, 4, 20, 30), (30, 10, 9, 9)])
    parts = [training_module(batch(box_alone(both, other)), training_module.normalizer([2]))[1] for other in (1, 0)]
    of_both = training_module(batch(both), training_module.normalizer([2]))[1]
    for name in ("focal", "dice"):
        torch.testing.assert_close(parts[0][name] + parts[1][name], of_both[name])
        assert (parts[0][name] > 0) & (parts[1][name] > 0)


def test_only_jointly_gradients_reach_the_detector() -> None:
    one = batch(target([(3, 4, 20, 30)]))
    reached: dict[str, set[str]] = {}
    for name, training_module in (("frozen", frozen_module()), ("joint", joint())):
        training_module(one, training_module.normalizer([1]))[0].backward()
        reached[name] = {parameter.split(".")[1] for parameter, gradient in gradients(training_module).items() if gradient.any()}
    assert reached["frozen"] == {"bbox_attention", "mask_head"}
    assert reached["joint"] - reached["frozen"] == {
        "backbone", "input_proj", "transformer", "query_embed", "class_embed", "bbox_embed",
    }  # fmt: skip


def test_the_masks_alone_have_a_gradient_in_the_backbone() -> None:
    one = batch(target([(3, 4, 20, 30)]))
    training_module, plain = joint(), joint()
    training_module(one, training_module.normalizer([1]))[0].backward()
    DetectionTrainingModule.forward(plain, one, plain.normalizer([1]))[0].backward()
    without, whole = gradients(plain), gradients(training_module)
    name = next(name for name in whole if name.startswith("model.backbone.0.") and whole[name].dim() == 4)
    assert not torch.allclose(whole[name], without[name])


@pytest.mark.parametrize("auxiliary", [True, False])
def test_the_joint_loss_is_the_detectors_and_that_of_the_masks(auxiliary: bool) -> None:
    loss = replace(SET_LOSS, auxiliary=auxiliary)
    training_module, one = joint(loss), batch(target([(3, 4, 20, 30), (30, 10, 9, 9)]))
    normalizer = training_module.normalizer([2])
    assert normalizer == Normalizer.of([2], SMALL.queries, loss.no_object)
    total, parts = training_module(one, normalizer)
    of_boxes, box_parts = DetectionTrainingModule(training_module.model, loss, torch.float32)(one, normalizer)
    assert {name: parts[name] for name in box_parts} == box_parts
    assert parts.keys() - box_parts.keys() == {"focal", "dice"}
    assert total.item() == pytest.approx((of_boxes + parts["focal"] + parts["dice"]).item())
    # Both use the same matching: that of a frozen detector with the same costs.
    _, frozen = frozen_module()(one, normalizer)
    torch.testing.assert_close({name: parts[name] for name in frozen}, frozen)


def test_jointly_an_object_without_a_mask_is_a_box_like_any_other() -> None:
    training_module, both = joint(), target([(3, 4, 20, 30), (30, 10, 9, 9)])
    normalizer = training_module.normalizer([2])
    _, whole = training_module(batch(both), normalizer)
    total, bare = training_module(batch(box_alone(both, 0, 1)), normalizer)
    assert {name: bare[name] for name in ("classification", "l1", "giou")} == {
        name: whole[name] for name in ("classification", "l1", "giou")
    }
    assert (float(bare["focal"]), float(bare["dice"])) == (0, 0)
    total.backward()
    assert set(gradients(training_module)) == {name for name, p in training_module.named_parameters() if p.requires_grad}, (
        "as DDP needs"
    )


def test_jointly_images_without_objects_teach_that_there_is_nothing() -> None:
    training_module = joint()
    total, parts = training_module(batch(target([]), target([])), training_module.normalizer([0, 0]))
    total.backward()
    assert parts["classification"] > 0
    assert float(parts["l1"] + parts["giou"] + parts["focal"] + parts["dice"]) == 0
    assert set(gradients(training_module)) == {name for name, p in training_module.named_parameters() if p.requires_grad}


def test_pieces_of_a_joint_batch_add_up_to_the_whole() -> None:
    whole, pieces = joint(), joint()
    targets = [target([(3, 4, 20, 30), (30, 10, 9, 9)]), target([]), box_alone(target([(10, 10, 12, 8)]), 0)]
    everything, normalizer = batch(*targets), whole.normalizer([2, 0, 1])
    expected, _ = whole(everything, normalizer)
    expected.backward()
    totals = []
    for i in range(3):
        piece = Batch(everything.images[i : i + 1], Padding.of(everything.padding.mask[i : i + 1]), [targets[i]])
        total, _ = pieces(piece, normalizer)
        total.backward()
        totals.append(total)
    torch.testing.assert_close(torch.stack(totals).sum(), expected)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(pieces)[name], gradient, rtol=1e-3, atol=1e-5)


def test_dropout_is_on_in_a_detector_that_learns_and_off_in_its_validation() -> None:
    training_module, one = joint(dropout=0.5), batch(target([(3, 4, 20, 30)]))
    losses = [float(training_module(one, training_module.normalizer([1]))[0]) for _ in range(2)]
    assert losses[0] != losses[1]
    training_module.eval()
    assert float(training_module(one, training_module.normalizer([1]))[0]) == float(
        training_module(one, training_module.normalizer([1]))[0]
    )


def test_stages_of_the_backbone_that_a_profile_freezes_stay_frozen_jointly() -> None:
    frozen = replace(SMALL, backbone=replace(SMALL.backbone, frozen_stages=2))
    training_module = JointTrainingModule(Detr(frozen, num_classes=3, mask_head=True), SET_LOSS, LOSS, torch.float32)
    before = {name for name, p in Detr(frozen, num_classes=3, mask_head=True).named_parameters() if not p.requires_grad}
    assert before
    assert {name.removeprefix("model.") for name, p in training_module.named_parameters() if not p.requires_grad} == before
