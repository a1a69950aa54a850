"""UPSNet's semantic head, panoptic head, selection of instances, decision and losses on literal examples and at the edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from detr_core.model.regions.pixel_loss import pixel_loss
from detr_core.model.regions.targets import NO_CLASS
from detr_core.model.upsnet.decision import decide
from detr_core.model.upsnet.loss import panoptic_loss, pooled_semantic_loss
from detr_core.model.upsnet.panoptic_head import label_map, panoptic_logits
from detr_core.model.upsnet.placement import placed_masks, semantic_parts
from detr_core.model.upsnet.selection import confident, not_overlapping
from detr_core.model.upsnet.semantic_head import SemanticHead
from detr_core.model.upsnet.target import drawn_instances, panoptic_target


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def logits_of(semantic: list[list[int]], channels: int) -> Tensor:
    """Returns semantic logits [channels, H, W] with the given argmax."""
    return F.one_hot(torch.tensor(semantic), channels).permute(2, 0, 1).float()


# The semantic head


def test_the_semantic_head_predicts_at_the_resolution_of_the_finest_level() -> None:
    torch.manual_seed(0)
    head = SemanticHead(channels=8, width=6, levels=3, classes=5)
    maps = [drawn(2, 8, 21, 33), drawn(2, 8, 11, 17), drawn(2, 8, 6, 9)]
    assert head(maps).shape == (2, 5, 21, 33)


def test_the_convolutions_are_plain_ones_until_the_offsets_have_learned() -> None:
    torch.manual_seed(0)
    layer = SemanticHead(channels=8, width=6, levels=1, classes=5).subnet[0]
    maps = drawn(1, 8, 9, 12)
    plain = F.relu(F.conv2d(maps, layer.convolution.weight, layer.convolution.bias, padding=1))
    torch.testing.assert_close(layer(maps), plain, rtol=1e-4, atol=1e-5)


def test_all_levels_share_one_subnet_whose_weights_all_learn() -> None:
    torch.manual_seed(0)
    head = SemanticHead(channels=8, width=6, levels=2, classes=5)
    one, two = SemanticHead(8, 6, 1, 5), SemanticHead(8, 6, 4, 5)
    assert sum(map(torch.numel, one.subnet.parameters())) == sum(map(torch.numel, two.subnet.parameters()))
    head([drawn(1, 8, 8, 8), drawn(1, 8, 4, 4)]).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in head.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_the_published_semantic_head_has_the_published_sizes() -> None:
    with torch.device("meta"):
        head = SemanticHead(channels=256, width=128, levels=4, classes=133)
    assert [tuple(layer.convolution.weight.shape) for layer in head.subnet] == [
        (128, 256, 3, 3),
        (128, 128, 3, 3),
        (128, 128, 3, 3),
    ]
    assert head.classifier.weight.shape == (133, 512, 1, 1)


# The places of instances


@pytest.mark.parametrize(
    "box",
    [[3.0, 2.0, 20.0, 15.0], [3.9, 2.9, 20.9, 15.9], [0.0, 0.0, 31.0, 23.0], [-5.5, -4.2, 40.3, 30.9], [7.0, 7.0, 7.0, 7.0]],
)
def test_a_mask_is_resized_to_its_box_and_cut_at_the_image(box: list[float]) -> None:
    mask = drawn(1, 28, 28)
    x0, y0, x1, y1 = (int(corner) for corner in box)
    resized = F.interpolate(mask[None], (max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)), mode="bilinear", align_corners=False)[0, 0]
    expected = torch.zeros(24, 32)
    for y in range(max(y0, 0), min(y0 + resized.shape[0], 24)):
        for x in range(max(x0, 0), min(x0 + resized.shape[1], 32)):
            expected[y, x] = resized[y - y0, x - x0]
    torch.testing.assert_close(placed_masks(mask, torch.tensor([box]), (24, 32))[0], expected, rtol=1e-4, atol=1e-5)


def test_a_box_with_its_corners_exchanged_has_one_pixel() -> None:
    placed = placed_masks(torch.ones(1, 28, 28), torch.tensor([[10.0, 8.0, 4.0, 3.0]]), (24, 32))[0]
    assert placed.nonzero().tolist() == [[8, 10]]


def test_nothing_is_placed_by_a_box_outside_of_the_image() -> None:
    boxes = torch.tensor([[40.0, 2.0, 50.0, 9.0], [-20.0, -20.0, -9.0, -9.0]])
    assert not placed_masks(torch.ones(2, 28, 28), boxes, (24, 32)).any()
    assert not semantic_parts(torch.ones(3, 24, 32), torch.tensor([1, 2]), boxes).any()


def test_the_far_corner_of_a_semantic_part_is_rounded_half_to_even() -> None:
    boxes = torch.tensor([[1.9, 0.0, 4.5, 0.0], [1.9, 0.0, 5.5, 0.0]])
    parts = semantic_parts(torch.ones(1, 1, 10), torch.tensor([0, 0]), boxes)
    assert [part[0].nonzero()[:, 0].tolist() for part in parts] == [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]


# The panoptic head


def test_an_image_without_instances_has_stuff_and_unknown_pixels() -> None:
    semantic = torch.tensor([3.0, 0.0, 1.0])[:, None, None].expand(3, 4, 5).clone()  # two stuff classes and one thing class
    semantic[2, 0] = 9
    nothing = torch.zeros(0, 4, 5)
    labels = label_map(panoptic_logits(semantic, nothing, nothing, num_stuff=2))
    assert (labels[0] == NO_CLASS).all()
    assert (labels[1:] == 0).all()
    classes, instances = decide(labels, semantic, torch.zeros(0, dtype=torch.int64), 2, smallest_stuff=1)
    assert torch.equal(classes, labels)
    assert not instances.any()


def test_an_image_without_stuff_classes_has_instances_and_unknown_pixels() -> None:
    semantic = drawn(3, 6, 8).abs()
    boxes, channels = torch.tensor([[1.0, 1.0, 4.0, 3.0]]), torch.tensor([2])
    placed = placed_masks(torch.full((1, 28, 28), 50.0), boxes, (6, 8))
    labels = label_map(panoptic_logits(semantic, semantic_parts(semantic, channels, boxes), placed, num_stuff=0))
    assert (labels[1:4, 1:5] == 0).all()
    assert int((labels == 0).sum()) == 12
    assert int((labels == NO_CLASS).sum()) == 36
    classes, instances = decide(labels, semantic, channels, 0, smallest_stuff=1000)
    assert (classes[1:4, 1:5] == 2).all()
    assert int(instances.sum()) == 12


def test_channels_are_never_mistaken_for_void_whatever_their_number() -> None:
    semantic = torch.zeros(300, 2, 2)
    semantic[255] = 5
    assert (label_map(panoptic_logits(semantic, torch.zeros(0, 2, 2), torch.zeros(0, 2, 2), num_stuff=299)) == 255).all()


# Which instances are kept


def test_only_confident_boxes_stay_and_overlapping_ones_of_all_classes_exclude_each_other() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 10.0, 10.0], [30.0, 0.0, 40.0, 9.0], [50.0, 0.0, 60.0, 9.0]])
    scores = torch.tensor([0.7, 0.9, 0.6, 0.8])
    assert confident(boxes, scores, 0.6).tolist() == [1, 3]
    assert confident(boxes[:0], scores[:0], 0.6).tolist() == []


def test_exactly_the_permitted_share_of_a_mask_may_be_taken_by_its_class() -> None:
    placed = torch.full((3, 1, 30), -1.0)
    placed[0, 0, :10] = 1
    placed[1, 0, 7:17] = 1  # three of ten pixels are taken
    placed[2, 0, 13:23] = 1  # four of ten
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert not_overlapping(scores, torch.tensor([4, 4, 4]), placed, 0.3).tolist() == [0, 1]
    assert not_overlapping(scores, torch.tensor([4, 4, 5]), placed, 0.3).tolist() == [0, 1, 2]


def test_an_instance_with_an_empty_mask_is_dropped() -> None:
    placed = torch.full((2, 3, 4), -1.0)
    placed[1, 0, 0] = 1
    assert not_overlapping(torch.tensor([0.9, 0.8]), torch.tensor([3, 3]), placed, 0.3).tolist() == [1]
    assert not_overlapping(torch.zeros(0), torch.zeros(0, dtype=torch.int64), placed[:0], 0.3).tolist() == []


# The decision


def test_an_instance_becomes_stuff_where_the_semantic_head_sees_one_stuff_class_in_half_of_it() -> None:
    labels = torch.tensor([[2, 2, 2, 2, 3, 3, 3, 0]])  # two stuff classes, then two instances
    semantic = logits_of([[1, 1, 4, 5, 1, 4, 4, 0]], channels=6)  # channels 4 and 5 are things
    classes, instances = decide(labels, semantic, torch.tensor([4, 5]), num_stuff=2, smallest_stuff=0)
    assert classes.tolist() == [[1, 1, 1, 1, 5, 5, 5, 0]]
    assert instances.tolist() == [[0, 0, 0, 0, 2, 2, 2, 0]]


def test_stuff_with_fewer_pixels_than_the_limit_is_void() -> None:
    labels = torch.tensor([[0, 0, 1, 1, 1, NO_CLASS]])
    nothing = torch.zeros(0, dtype=torch.int64)
    classes, _ = decide(labels, logits_of([[0] * 6], channels=3), nothing, num_stuff=2, smallest_stuff=3)
    assert classes.tolist() == [[NO_CLASS, NO_CLASS, 1, 1, 1, NO_CLASS]]


# The target and the losses


def test_the_number_of_drawn_instances_is_seven_tenths_and_at_least_one() -> None:
    assert [len(drawn_instances(count, seed=3)) for count in (0, 1, 2, 3, 7, 10)] == [0, 1, 1, 2, 4, 7]
    assert drawn_instances(9, seed=3).tolist() == drawn_instances(9, seed=3).tolist()
    assert len(set(drawn_instances(9, seed=3).tolist())) == 6


def test_pixels_of_objects_that_are_left_out_are_unknown() -> None:
    semantic = torch.tensor([[0, 1, 2, 3, NO_CLASS]])  # channels 2 and 3 are things
    masks = torch.tensor([[[False, False, True, False, False]]])
    assert panoptic_target(semantic, masks, num_stuff=2).tolist() == [[0, 1, 2, 3, NO_CLASS]]
    assert panoptic_target(semantic, masks[:0], num_stuff=2).tolist() == [[0, 1, 2, 2, NO_CLASS]]


def test_losses_are_zero_with_a_gradient_if_no_pixel_counts() -> None:
    logits = drawn(4, 5, 6).requires_grad_()
    void = torch.full((5, 6), NO_CLASS)
    boxes = torch.tensor([[0.0, 0.0, 3.0, 3.0]])
    losses = [pixel_loss(logits, void), pooled_semantic_loss(logits, void, boxes), panoptic_loss(logits, void)]
    losses.append(pooled_semantic_loss(logits, torch.zeros(5, 6, dtype=torch.int64), boxes[:0]))
    assert [float(loss.detach()) for loss in losses] == [0, 0, 0, 0]
    torch.stack(losses).sum().backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_semantic_loss_is_the_mean_over_the_pixels_that_count() -> None:
    logits, target = drawn(3, 4, 5), torch.randint(0, 3, (4, 5), generator=torch.Generator().manual_seed(1))
    target[0] = NO_CLASS
    expected = F.cross_entropy(logits[None, :, 1:], target[None, 1:])
    torch.testing.assert_close(pixel_loss(logits, target), expected)
    torch.testing.assert_close(panoptic_loss(logits, target), expected * 15 / 20)


def test_the_pooled_loss_sees_only_what_is_in_the_boxes() -> None:
    target = torch.zeros(16, 16, dtype=torch.int64)
    target[4:8, 4:8] = 1
    logits = torch.stack([torch.where(target == 0, 20.0, -20.0), torch.where(target == 1, 20.0, -20.0)])
    logits[:, 12:] = -logits[:, 12:]  # wrong outside of the box alone
    inside = pooled_semantic_loss(logits, target, torch.tensor([[5.0, 5.0, 7.0, 7.0]]))
    assert float(inside) < 1e-3
    assert float(pooled_semantic_loss(logits, target, torch.tensor([[1.0, 13.0, 15.0, 15.0]]))) > 10
