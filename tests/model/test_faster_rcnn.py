"""Faster R-CNN: losses and pooling equal torchvision's if its assumptions hold, and are correct otherwise; edge cases."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, generalized_box_iou

from detr_core.model.common.backbone import Backbone
from detr_core.model.common.config import BackboneConfig
from detr_core.model.faster_rcnn.config import FasterRcnnConfig, RegionLossConfig
from detr_core.model.regions.detector import CELLS, FasterRcnn, Samples
from detr_core.model.regions.losses import region_losses
from detr_core.model.regions.parts import Anchors, Pooling, Sampler, truth_of
from detr_core.structures import Padding, Target
from tests.model.batches import images

SIZE = (96, 96)  # of the images
SMALL = FasterRcnnConfig(
    backbone=BackboneConfig("small", dilation=False, weights=None, norm="group", frozen_stages=0),
    stages=(1, 2, 4),
    width=16,
    anchors=(12.0, 24.0, 48.0, 80.0),
    proposals=40,
    sampled_anchors=32,
    sampled_proposals=16,
    head_width=24,
)
RESNET = replace(
    SMALL,
    backbone=BackboneConfig("resnet18", dilation=False, weights=None, norm="group", frozen_stages=0),
    stages=(1, 2, 3, 4),
    anchors=(16.0, 32.0, 64.0, 96.0, 128.0),
)
DC5 = replace(
    SMALL,
    backbone=BackboneConfig("small", dilation=True, weights=None, norm="group", frozen_stages=0),
    stages=(4,),
    width=None,
    anchors=(12.0, 24.0, 48.0, 80.0),
)
LOSS = RegionLossConfig(objectness=1, proposals=1, classification=1, boxes=1, giou=0)
PLUS = RegionLossConfig(objectness=1, proposals=0, proposals_giou=1, classification=1, boxes=0, giou=20)  # the paper's (A.4)


def detector(config: FasterRcnnConfig = SMALL) -> FasterRcnn:
    torch.manual_seed(0)
    return FasterRcnn(config, num_classes=3).eval()


def target(labels: list[int], boxes: list[list[float]], sampling_seed: int = 5, size: tuple[int, int] = (96, 96)) -> Target:
    """Returns a target with these labels and boxes. boxes: cxcywh, normalised to 0..1."""
    return Target(0, torch.tensor(labels, dtype=torch.int64), torch.tensor(boxes).reshape(-1, 4), None, size, size, sampling_seed)


TARGETS = [
    target([2, 0], [[0.3, 0.3, 0.3, 0.4], [0.7, 0.6, 0.5, 0.5]], 11),
    target([1], [[0.5, 0.5, 0.6, 0.6]], 12),
]


def loss_of(samples: Samples, count: int, config: RegionLossConfig = LOSS) -> tuple[Tensor, dict[str, Tensor]]:
    return region_losses(samples, count, config)


def test_losses_are_torchvisions() -> None:
    model = detector(RESNET).train()
    x, padding = images(2, *SIZE)
    total, parts = loss_of(model.samples(x, padding, TARGETS), 2)
    maps = OrderedDict(enumerate(model._maps(x)))
    shapes = [(96, 96), (96, 96)]
    truth: list[dict[str, Any]] = [truth_of(target, shape) for target, shape in zip(TARGETS, shapes, strict=True)]
    pooling = MultiScaleRoIAlign([0, 1, 2, 3], output_size=7, sampling_ratio=2)
    model.roi_heads.box_roi_pool = pooling
    proposals, expected = model.rpn(ImageList(x, shapes), maps, truth)
    _, of_proposals = model.roi_heads(maps, proposals, shapes, truth)
    expected |= of_proposals
    names = {
        "objectness": "loss_objectness",
        "proposals": "loss_rpn_box_reg",
        "classification": "loss_classifier",
        "boxes": "loss_box_reg",
    }
    for ours, theirs in names.items():
        torch.testing.assert_close(parts[ours], expected[theirs].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(total, sum(expected.values()), rtol=1e-4, atol=1e-5)


def test_pooling_is_torchvisions_where_strides_are_powers_of_two() -> None:
    generator = torch.Generator().manual_seed(2)
    maps = [torch.randn(2, 4, 256 // stride, 256 // stride, generator=generator) for stride in (4, 8, 16, 32)]
    corners = torch.rand(2, 30, 2, generator=generator) * 100
    boxes = [torch.cat([low, low + 2 + 150 * torch.rand(30, 2, generator=generator)], 1) for low in corners]
    theirs = MultiScaleRoIAlign([0, 1, 2, 3], output_size=7, sampling_ratio=2)
    expected = theirs(OrderedDict(enumerate(maps)), boxes, [(256, 256)] * 2)
    torch.testing.assert_close(Pooling([4, 8, 16, 32], CELLS)(maps, boxes), expected)


@pytest.mark.parametrize("side", [30.0, 50.0, 90.0])
def test_pooling_samples_the_place_of_the_box_at_any_stride(side: float) -> None:
    # Maps that hold at each cell the x that its anchors stand at, in pixels of the image.
    maps = [((torch.arange(96 // stride) + 0.0) * stride).expand(1, 1, 96 // stride, -1) for stride in (3, 6, 12)]
    box = torch.tensor([[3.0, 3.0, 3.0 + side, 3.0 + side]])
    pooled = Pooling([3, 6, 12], CELLS)(maps, [box])[0, 0]
    centers = 3 + side * (torch.arange(7) + 0.5) / 7
    torch.testing.assert_close(pooled[3, :6], centers[:6], rtol=0, atol=0.1)


def test_anchors_stand_at_the_strides_of_the_backbone_whatever_the_images_size() -> None:
    model = detector()
    x, _ = images(1, 100, 100)
    maps = model._maps(x)
    (anchors,) = model.rpn.anchor_generator(ImageList(x, [(100, 100)]), maps)
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    start = 0
    for level, stride in zip(maps, (3, 6, 12, 24), strict=True):
        height, width = level.shape[-2:]
        of_level = middle[start : start + 3 * height * width]
        assert of_level.amax(0).tolist() == [stride * (width - 1), stride * (height - 1)]
        start += len(of_level)
    assert start == len(anchors)


def test_the_anchors_of_a_dc5_have_five_sizes_and_three_ratios_at_each_cell() -> None:
    anchors = Anchors(((32.0, 64.0, 128.0, 256.0, 512.0),), [16])
    (boxes_of_anchors,) = anchors(ImageList(torch.zeros(1, 3, 32, 48), [(32, 48)]), [torch.zeros(1, 1, 2, 3)])
    # Rounded halves of width and height: size / sqrt(ratio) and size * sqrt(ratio), for the ratios 1/2, 1 and 2.
    halves = [
        (23, 11), (45, 23), (91, 45), (181, 91), (362, 181),
        (16, 16), (32, 32), (64, 64), (128, 128), (256, 256),
        (11, 23), (23, 45), (45, 91), (91, 181), (181, 362),
    ]  # fmt: skip
    expected = [[x - width, y - height, x + width, y + height] for y in (0, 16) for x in (0, 16, 32) for width, height in halves]
    assert boxes_of_anchors.tolist() == expected


def test_a_dc5_has_all_anchors_at_each_cell_of_its_one_map() -> None:
    model = detector(DC5)
    x, padding = images(1, 100, 100)
    (level,) = model._maps(x)
    assert level.shape == (1, 96, 17, 17), "a stride of 6 pixels"
    (anchors,) = model.rpn.anchor_generator(ImageList(x, [(100, 100)]), [level])
    assert anchors.shape == (17 * 17 * 12, 4)
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert middle[12:24].tolist() == [[6, 0]] * 12, "the second cell"
    assert middle[-1].tolist() == [96, 96]
    objectness, deltas = model.rpn.head([level])
    assert (objectness[0].shape[1], deltas[0].shape[1]) == (12, 48)
    assert model.eval()(x, padding).boxes[0].shape[1] == 4


def test_more_proposals_are_kept_in_training_if_the_configuration_says_so() -> None:
    model = detector(replace(DC5, proposals=20, candidates=200, training_proposals=40, training_candidates=400))
    x, _ = images(1, *SIZE)
    counts = []
    for training in (True, False):
        model.train(training)
        _, _, _, proposals = model._proposals(model._maps(x), x, [(96, 96)])
        counts.append(len(proposals[0]))
    assert counts == [40, 20]


@pytest.mark.parametrize(("name", "dilation", "strides"), [
    ("small", False, [3, 6, 12, 12]), ("small", True, [3, 6, 6, 6]), ("small_deep", False, [3, 6, 12, 12]),
])  # fmt: skip
def test_the_strides_of_the_small_backbones_are_those_of_their_maps(name: str, dilation: bool, strides: list[int]) -> None:
    backbone = Backbone(BackboneConfig(name, dilation, weights=None, norm="group", frozen_stages=0))  # type: ignore[arg-type]
    assert backbone.strides == strides
    assert [96 // level.shape[-1] for level in backbone(torch.zeros(1, 3, 96, 96))] == strides


def test_a_class_is_one_higher_inside_and_itself_outside() -> None:
    model = detector().train()
    samples = model.samples(*images(2, *SIZE), TARGETS)
    assert set(samples.labels.tolist()) <= {0, 1, 2, 3}
    assert set(samples.labels[samples.proposal_image == 0].tolist()) == {0, 1, 3}, "targets 2 and 0; each is a proposal too"
    assert set(samples.labels[samples.proposal_image == 1].tolist()) == {0, 2}
    with torch.no_grad():  # sure that everything is of torchvision's class 3
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 9.0]))
    output = model.eval()(*images(2, *SIZE))
    assert all(len(labels) > 0 and set(labels.tolist()) == {2} for labels in output.labels)


def test_the_regression_target_of_a_box_is_the_targets_box() -> None:
    samples = detector().train().samples(*images(2, *SIZE), TARGETS)
    wanted = torch.tensor([[14.4, 9.6, 43.2, 48.0], [43.2, 33.6, 91.2, 81.6]])
    of_first = samples.target_boxes[samples.positive_image == 0]
    assert len(of_first) > 0
    assert (torch.cdist(of_first, wanted).amin(1) < 1e-3).all()


@pytest.mark.parametrize("config", [SMALL, DC5])
@pytest.mark.parametrize("loss", [LOSS, replace(LOSS, giou=2), PLUS])
def test_images_without_objects_and_tiny_objects_leave_a_finite_loss_for_every_weight(
    config: FasterRcnnConfig, loss: RegionLossConfig
) -> None:
    model = detector(config).train()
    targets = [target([], []), target([1], [[0.5, 0.5, 1e-6, 1e-6]])]
    samples = model.samples(*images(2, *SIZE), targets)
    assert (samples.labels[samples.proposal_image == 0] == 0).all()
    assert not (samples.object_image == 0).any()
    total, parts = loss_of(samples, 2, loss)
    total.backward()
    assert total.isfinite()
    assert all(part.isfinite() for part in parts.values())
    gradients = [weight.grad for weight in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_a_batch_of_nothing_still_has_gradients_for_every_weight() -> None:
    model = detector().train()
    total, parts = loss_of(model.samples(*images(2, *SIZE), [target([], []), target([], [])]), 2)
    total.backward()
    assert parts["boxes"] == 0
    assert parts["proposals"] == 0
    assert parts["objectness"] > 0
    assert all(weight.grad is not None for weight in model.parameters())


def test_giou_is_added_if_the_configuration_has_it() -> None:
    samples = detector().train().samples(*images(2, *SIZE), TARGETS)
    plain, parts = loss_of(samples, 2)
    with_giou, _ = loss_of(samples, 2, replace(LOSS, giou=3))
    torch.testing.assert_close(with_giou, plain + 3 * parts["giou"])


@pytest.mark.parametrize("config", [SMALL, DC5])
def test_the_giou_of_anchors_is_that_of_their_decoded_boxes(config: FasterRcnnConfig) -> None:
    model = detector(config).train()
    torch.nn.init.zeros_(model.rpn.head.bbox_pred.weight)  # then every anchor predicts its own box, moved by a tenth of its width
    model.rpn.head.bbox_pred.bias.data.copy_(torch.tensor([0.1, 0, 0, 0]).repeat(len(model.rpn.head.bbox_pred.bias) // 4))
    samples = model.samples(*images(2, *SIZE), TARGETS)
    of_first = samples.object_image == 0
    wanted = torch.tensor([[14.4, 9.6, 43.2, 48.0], [43.2, 33.6, 91.2, 81.6]])
    assert (torch.cdist(samples.anchor_target_boxes[of_first], wanted).amin(1) < 1e-3).all()
    (anchors, _) = model.rpn.anchor_generator(ImageList(images(2, *SIZE)[0], [SIZE] * 2), model._maps(images(2, *SIZE)[0]))
    moved = anchors + 0.1 * (anchors[:, 2:3] - anchors[:, :1]) * torch.tensor([1.0, 0, 1, 0])
    assert (torch.cdist(samples.anchor_boxes, moved).amin(1) < 1e-3).all()
    loss = 1 - generalized_box_iou(samples.anchor_boxes, samples.anchor_target_boxes).diagonal()
    counts = samples.anchor_image.bincount()
    expected = sum(loss[samples.object_image == image].sum() / counts[image] for image in (0, 1)) / 2
    torch.testing.assert_close(loss_of(samples, 2, PLUS)[1]["proposals_giou"], expected.detach())


def test_the_loss_of_a_step_is_the_sum_over_its_parts() -> None:
    model = detector().train()
    x, padding = images(2, *SIZE)
    whole, _ = loss_of(model.samples(x, padding, TARGETS), 2)
    halves = [
        loss_of(model.samples(x[i : i + 1], Padding.of(padding.mask[i : i + 1]), TARGETS[i : i + 1]), 2)[0] for i in range(2)
    ]
    torch.testing.assert_close(halves[0] + halves[1], whole, rtol=1e-4, atol=1e-5)


def test_proposals_sampled_for_an_image_depend_only_on_its_sampling_seed() -> None:
    model = detector().train()
    x, padding = images(2, *SIZE)

    def drawn(sampling_seed: int) -> list[float]:
        samples = model.samples(x, padding, [TARGETS[0], replace(TARGETS[1], sampling_seed=sampling_seed)])
        return [round(value, 4) for value in samples.objectness[samples.anchor_image == 0].tolist()]

    assert drawn(1) == drawn(2)
    samplers = [Sampler(8, 0.5) for _ in range(3)]
    labels = torch.tensor([1.0] * 3 + [0.0] * 40 + [-1.0] * 5)
    for sampler, seed in zip(samplers, (7, 7, 8), strict=True):
        sampler.seeds = [seed]
    (first, second, other) = (sampler([labels]) for sampler in samplers)
    assert torch.equal(first[1][0], second[1][0])
    assert not torch.equal(first[1][0], other[1][0])
    assert first[0][0].nonzero()[:, 0].tolist() == [0, 1, 2]
    assert int(first[1][0].sum()) == 5, "filled up with negatives"
    assert not first[1][0][43:].any(), "neither positive nor negative"


@torch.inference_mode()
def test_nothing_is_found_on_padding() -> None:
    model = detector()
    model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 9.0]))
    x, padding = images(2, *SIZE)
    padding.mask[1, :, 60:] = True
    padding.mask[1, 72:] = True
    output = model(x.masked_fill(padding.mask[:, None], 0), Padding.of(padding.mask))
    assert len(output.boxes[1]) > 0
    for boxes in output.boxes:
        assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (output.scores[0].diff() <= 0).all()
