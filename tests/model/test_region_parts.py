"""The region detectors' parts that replace torchvision's: the same results, with fewer waits of the host for the GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import _utils
from torchvision.ops import box_iou, generalized_box_iou_loss

from detr_core.model.common.host_values import marked_rows, uploaded
from detr_core.model.regions import proposals
from detr_core.model.regions.box_coder import BoxCoder
from detr_core.model.regions.losses import giou_loss
from detr_core.model.regions.parts import Matcher, Sampler
from detr_core.model.regions.proposals import best_of_levels, kept_proposals
from tests.simulated_gpu import CUDA, SimulatedGpu

SIZES = [(90, 120), (100, 70), (80, 80), (64, 100)]


def boxes(count: int, seed: int, side: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * side
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=generator) * side / 2], 1)


def candidates() -> tuple[Tensor, Tensor, Tensor]:
    """Returns the boxes [4, 90, 4], scores [4, 90] and levels [90] of candidates, some of which are no proposals."""
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(4, 90, generator=generator)
    levels = torch.arange(3).repeat_interleave(30)
    of_images = boxes(4 * 90, 2).view(4, 90, 4)
    scores[0, 3] = torch.nan
    of_images[1, 5, 2:] = of_images[1, 5, :2]
    of_images[1, 6] = torch.nan
    scores[1, 5:7] = 1
    of_images[2, :, 2:] = of_images[2, :, :2]  # an image without proposals
    return of_images, scores, levels


@pytest.mark.parametrize(("compared", "waits"), [(2**15, 2), (180, 3), (1, 5)])
def test_a_gpu_keeps_the_proposals_that_the_cpu_keeps(compared: int, waits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "COMPARED", compared)
    expected = kept_proposals(*candidates(), SIZES, 0.5, 20)
    counts = [len(of_image) for of_image in expected]
    assert counts[2] == 0
    assert max(counts) == 20
    with SimulatedGpu() as gpu:
        ours = kept_proposals(*(uploaded(values, CUDA) for values in candidates()), SIZES, 0.5, 20)
        assert gpu.waits.total() == waits
        assert [of_image.tolist() for of_image in ours] == [of_image.tolist() for of_image in expected]


def test_the_best_candidates_of_each_level() -> None:
    objectness = torch.tensor([[0.1, 0.5, 0.3, 9.0, 7.0], [3.0, 2.0, 1.0, 0.0, 4.0]])
    best, levels = best_of_levels(objectness, [3, 2], 2)
    assert best.tolist() == [[1, 2, 3, 4], [0, 1, 4, 3]]
    assert levels.tolist() == [0, 0, 1, 1]
    assert best_of_levels(objectness, [4, 1], 3)[1].tolist() == [0, 0, 0, 1], "a level with fewer anchors"


def test_box_codings_are_torchvisions() -> None:
    ours, theirs = BoxCoder(10, 5), _utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
    reference, others = boxes(50, 3), boxes(50, 4)
    assert torch.equal(ours.encode_single(reference, others), theirs.encode_single(reference, others))
    deltas = torch.randn(50, 12, generator=torch.Generator().manual_seed(5)) * 8
    assert torch.equal(ours.decode_single(deltas, others), theirs.decode_single(deltas, others))


def test_matches_are_torchvisions() -> None:
    objects = torch.cat([boxes(5, 6), torch.tensor([[300.0, 300, 310, 310]])])  # no box meets the last object
    overlap = box_iou(objects, boxes(80, 7))
    ours, theirs = (kind(0.7, 0.3, allow_low_quality_matches=True)(overlap) for kind in (Matcher, _utils.Matcher))
    assert torch.equal(ours, theirs)
    plain = Matcher(0.7, 0.3)(overlap)
    assert not torch.equal(ours, plain), "some object has no IoU of 0.7 with any box"


def test_the_giou_loss_and_its_gradient_are_torchvisions() -> None:
    gradients = []
    for loss in (giou_loss, generalized_box_iou_loss):
        predicted = boxes(60, 8).requires_grad_()
        value = loss(predicted, boxes(60, 9))
        value.square().sum().backward()
        gradients.append((value.detach(), predicted.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert gradients[0][1] is not None
    assert gradients[1][1] is not None
    assert torch.equal(gradients[0][1], gradients[1][1])


def test_equal_random_numbers_are_sampled_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = torch.tensor([0.5, 0.25, 0.5, 0.25, 0.25, 0.5])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: numbers)
    sampler = Sampler(4, 0.5)
    sampler.seeds = [0]
    (positive,), (negative,) = sampler([torch.tensor([1.0, 1, 1, 0, 0, 0])])
    assert positive.tolist() == [True, True, False, False, False, False]
    assert negative.tolist() == [False, False, False, True, True, False]


def test_the_host_waits_once_for_the_rows_of_several_marks() -> None:
    marks = [torch.tensor([True, False, True]), torch.zeros(4, dtype=torch.bool), torch.zeros(0, dtype=torch.bool)]
    with SimulatedGpu() as gpu:
        rows = marked_rows(*(uploaded(mark, CUDA) for mark in marks))
        assert gpu.waits.total() == 1
        assert [each.tolist() for each in rows] == [[0, 2], [], []]
