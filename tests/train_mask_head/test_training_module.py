"""Edge cases of the mask head's loss: no target, one pixel, more objects than queries, and equality with micro-batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_core.loss.criterion import Normalizer
from detr_core.model.detr.model import Detr
from detr_core.structures import Batch, Target
from detr_core.train_mask_head.config import MaskLossConfig
from detr_core.train_mask_head.training_module import PanopticTrainingModule
from tests.model.test_detr import SMALL

LOSS = MaskLossConfig(focal=1, dice=1, alpha=0.25, gamma=2)
SIZE = (48, 60)


def task(loss: MaskLossConfig = LOSS) -> PanopticTrainingModule:
    torch.manual_seed(0)
    return PanopticTrainingModule(Detr(SMALL, num_classes=3, mask_head=True), loss, torch.float32)


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
    return Batch(images, torch.zeros(len(targets), *SIZE, dtype=torch.bool), list(targets))


def gradients(of: PanopticTrainingModule) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in of.named_parameters() if p.grad is not None}


def test_images_without_objects_have_no_loss_and_zero_gradients() -> None:
    training_module = task()
    total, parts = training_module(batch(target([]), target([])), training_module.normalizer([0, 0]))
    total.backward()
    assert (total.item(), float(parts["focal"]), float(parts["dice"])) == (0, 0, 0)
    actual = gradients(training_module)
    assert set(actual) == {name for name, p in training_module.named_parameters() if p.requires_grad}, (
        "every process has some to share"
    )
    assert all(not gradient.any() for gradient in actual.values())


@pytest.mark.parametrize("objects", [[(20, 30, 1, 1)], [(0, 0, 48, 1)], [(5 * i, 6 * i, 4, 5) for i in range(9)]])
def test_one_pixel_one_column_and_more_objects_than_queries(objects: list[tuple[int, int, int, int]]) -> None:
    training_module = task()
    total, parts = training_module(batch(target(objects)), training_module.normalizer([len(objects)]))
    total.backward()
    matched = min(len(objects), SMALL.queries)
    assert 0 < float(parts["dice"]) <= matched / len(objects), "each matched mask adds at most 1, divided by all targets"
    assert float(parts["focal"]) > 0
    assert total.item() == pytest.approx((parts["focal"] + parts["dice"]).item())
    assert all(gradient.isfinite().all() for gradient in gradients(training_module).values())


def test_pieces_add_up_to_the_whole_also_when_one_is_empty() -> None:
    # What a micro-batch and a process do: the normaliser is of all of them.
    whole, pieces = task(), task()
    targets = [target([(3, 4, 20, 30), (30, 10, 9, 9)]), target([]), target([(10, 10, 12, 8)])]
    everything = batch(*targets)
    normalizer = whole.normalizer([2, 0, 1])
    assert normalizer == Normalizer.of([2, 0, 1], SMALL.queries, 0.1)
    expected, _ = whole(everything, normalizer)
    expected.backward()
    totals = []
    for i in range(3):
        piece = Batch(everything.images[i : i + 1], everything.padding[i : i + 1], [targets[i]])
        total, _ = pieces(piece, normalizer)
        total.backward()
        totals.append(total)
    torch.testing.assert_close(torch.stack(totals).sum(), expected)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(pieces)[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("off", ["focal", "dice"])
def test_a_term_that_is_off_is_not_in_the_sum(off: str) -> None:
    training_module = task(replace(LOSS, **{off: 0.0}))
    total, parts = training_module(batch(target([(3, 4, 20, 30)])), training_module.normalizer([1]))
    assert total.item() == pytest.approx(float(parts["dice" if off == "focal" else "focal"]))


def test_nothing_of_the_frozen_detector_is_random_or_moves() -> None:
    torch.manual_seed(0)
    model = Detr(replace(SMALL, dropout=0.5), num_classes=3, mask_head=True)
    training_module = PanopticTrainingModule(model, LOSS, torch.float32).train()
    assert not any(module.training for module in training_module.modules())
    one = batch(target([(3, 4, 20, 30)]))
    assert torch.equal(
        training_module(one, training_module.normalizer([1]))[0], training_module(one, training_module.normalizer([1]))[0]
    ), "no dropout"
    learning = {name.split(".")[1] for name, p in training_module.named_parameters() if p.requires_grad}
    assert learning == {"bbox_attention", "mask_head"}
