"""Panoptic FPN: the semantic branch, targets and losses by hand, panoptic maps, and the number of parameters by layer sizes."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from detr_core.config import ConfigError
from detr_core.model.panoptic_fpn.config import PanopticFpnConfig, PanopticFpnLossConfig, PanopticFpnMergingConfig
from detr_core.model.panoptic_fpn.loss import panoptic_fpn_losses, pixel_loss
from detr_core.model.panoptic_fpn.model import PanopticFpn
from detr_core.model.panoptic_fpn.semantic import SemanticBranch
from detr_core.model.regions.masks import MaskRcnn
from detr_core.model.regions.targets import NO_CLASS, class_map, things_of
from detr_core.model.spec import build_detector
from detr_core.structures import ImageRegions, Padding, Target
from tests.model.test_mask_rcnn import SMALL, TORCHVISION, images

ISTHING = (True, False, True, False, True)  # the classes 0, 2 and 4 are things, 1 and 3 are stuff
LOSS = PanopticFpnLossConfig(objectness=1, proposals=1, classification=1, boxes=1, giou=0, masks=1, semantic=0.5)


def config(base: object = SMALL, width: int = 32) -> PanopticFpnConfig:
    values = {field.name: getattr(base, field.name) for field in fields(base) if field.name != "kind"}  # type: ignore[arg-type]
    return PanopticFpnConfig(**values, semantic_width=width)


def detector() -> PanopticFpn:
    torch.manual_seed(0)
    return PanopticFpn(config(), ISTHING).eval()


def target(segments: list[tuple[int, tuple[int, int, int, int]]], size: tuple[int, int] = (96, 96)) -> Target:
    """Returns a target with rectangular segments. segments: the class and the rectangle (x0, y0, x1, y1 in pixels) of each."""
    height, width = size
    masks = torch.zeros(len(segments), *size, dtype=torch.bool)
    for mask, (_, (x0, y0, x1, y1)) in zip(masks, segments, strict=True):
        mask[y0:y1, x0:x1] = True
    corners = [
        ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height) for _, (x0, y0, x1, y1) in segments
    ]
    labels = torch.tensor([label for label, _ in segments], dtype=torch.int64)
    return Target(0, labels, torch.tensor(corners).reshape(-1, 4), masks, size, size, sampling_seed=7)


BOTH = target([(4, (10, 20, 50, 60)), (1, (0, 70, 96, 96)), (0, (60, 10, 90, 50)), (3, (0, 0, 96, 10))])
THINGS = target([(2, (10, 20, 50, 60))])
STUFF = target([(3, (0, 0, 96, 96))])
NOTHING = target([])


def loss_of(targets: list[Target]) -> tuple[PanopticFpn, Tensor, dict[str, Tensor]]:
    model = detector().train()
    return model, *panoptic_fpn_losses(model.samples(*images(len(targets)), targets), len(targets), LOSS)


# Targets


def test_things_have_the_labels_of_mask_rcnns_heads() -> None:
    (things,) = things_of([BOTH], detector().thing_of_class)
    assert things.labels.tolist() == [2, 0], "the third and the first of the things"
    assert things.masks is not None
    assert [int(mask.sum()) for mask in things.masks] == [40 * 40, 30 * 40]
    assert torch.equal(things.boxes, BOTH.boxes[[0, 2]])
    assert things_of([STUFF], detector().thing_of_class)[0].labels.shape == (0,)


def test_the_class_map_has_the_class_of_each_segment_and_none_between_them() -> None:
    classes = class_map(BOTH)
    counts = dict(zip(*(values.tolist() for values in classes.unique(return_counts=True)), strict=True))
    assert counts == {4: 1600, 1: 26 * 96, 0: 1200, 3: 960, NO_CLASS: 96 * 96 - 1600 - 26 * 96 - 1200 - 960}
    assert (classes[20:60, 10:50] == 4).all()
    assert (class_map(NOTHING) == NO_CLASS).all()


def test_the_semantic_target_calls_all_things_other_and_ignores_pixels_of_no_segment() -> None:
    (wanted,) = detector().train().samples(*images(1), [BOTH]).semantic_targets
    assert (wanted[20:60, 10:50] == 0).all()
    assert (wanted[10:50, 60:90] == 0).all()
    assert (wanted[70:] == 1).all(), "class 1 is the first stuff"
    assert (wanted[:10] == 2).all(), "class 3 is the second stuff"
    assert (wanted[11, :5] == NO_CLASS).all()


def test_the_detections_have_classes_of_the_dataset() -> None:
    model = detector()
    with torch.inference_mode():
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 0.0, 9.0, 0.0]))  # the second thing
        output = model(*images())
    assert all(len(labels) > 0 and set(labels.tolist()) == {2} for labels in output.labels)
    assert output.semantic is not None
    assert output.semantic.shape == (2, 3, 32, 32), "'other' and two kinds of stuff, at stride 3"


# The semantic branch and its loss


def test_a_level_has_one_stage_for_each_doubling_and_the_finest_one_has_one() -> None:
    branch = SemanticBranch(8, [4, 8, 16, 32], 32, 5)
    assert [len(stages) for stages in branch.levels] == [1, 1, 2, 3]  # type: ignore[arg-type]
    shapes = [(25, 34), (13, 17), (7, 9), (4, 5)]  # of an image of 100 x 136 pixels: not every side is half the one before
    maps = [torch.randn(2, 8, *shape) for shape in shapes]
    assert branch(maps).shape == (2, 5, 25, 34)


def test_the_levels_are_added_before_they_are_classified() -> None:
    torch.manual_seed(0)
    branch = SemanticBranch(8, [4, 8], 32, 5)
    maps = [torch.randn(1, 8, 8, 8), torch.randn(1, 8, 4, 4)]
    alone = [branch.levels[number][0](level) for number, level in enumerate(maps)]  # type: ignore[index]
    upsampled = torch.nn.functional.interpolate(alone[1], scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(branch(maps), branch.predictor(alone[0] + upsampled))


def test_the_semantic_loss_is_a_mean_over_the_pixels_that_have_a_class() -> None:
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])
    half = torch.tensor([[0, NO_CLASS]])
    assert float(pixel_loss(logits, half)) == pytest.approx(float(-torch.tensor([2.0, 0.0]).log_softmax(0)[0]))
    both = pixel_loss(logits, torch.tensor([[0, 1]]))
    assert float(both) == pytest.approx((float(pixel_loss(logits, half)) + 0.6931472) / 2)
    nothing = pixel_loss(logits.requires_grad_(), torch.full((1, 2), NO_CLASS))
    nothing.backward()
    assert nothing == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))  # type: ignore[arg-type]


def test_the_loss_of_a_batch_is_the_mean_over_its_images() -> None:
    _, whole, _ = loss_of([BOTH, THINGS])
    model, (x, padding) = detector().train(), images(2)
    each = [
        panoptic_fpn_losses(model.samples(x[i : i + 1], Padding.of(padding.mask[i : i + 1]), [one]), 2, LOSS)[0]
        for i, one in enumerate([BOTH, THINGS])
    ]
    torch.testing.assert_close(each[0] + each[1], whole, rtol=1e-4, atol=1e-5)


def test_the_semantic_loss_is_added_with_its_weight() -> None:
    _, total, parts = loss_of([BOTH])
    weights = LOSS.weights
    assert weights["semantic"] == 0.5
    torch.testing.assert_close(total.detach(), sum(weights[name] * part for name, part in parts.items()))


@pytest.mark.parametrize("targets", [[STUFF, BOTH], [THINGS, BOTH], [NOTHING, NOTHING], [STUFF, STUFF], [THINGS, NOTHING]])
def test_images_without_things_without_stuff_or_without_both_leave_a_finite_loss_for_every_weight(targets: list[Target]) -> None:
    model, total, parts = loss_of(targets)
    total.backward()
    assert all(part.isfinite() for part in parts.values())
    gradients = [weight.grad for weight in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert (parts["semantic"] == 0) == all(each is NOTHING for each in targets)


def test_padding_takes_no_part_in_the_semantic_loss() -> None:
    model, (x, padding) = detector().train(), images(2)
    padding.mask[1, :, 60:] = True
    small = target([(3, (0, 0, 60, 96))], size=(96, 60))
    samples = model.samples(x.masked_fill(padding.mask[:, None], 0), Padding.of(padding.mask), [BOTH, small])
    assert [logits.shape[1:] for logits in samples.semantic_logits] == [(96, 96), (96, 60)]
    assert (samples.semantic_targets[1] == 2).all()


# Panoptic maps


def found(labels: list[int], scores: list[float], boxes: list[list[float]], channel: Tensor) -> ImageRegions:
    """Returns instances that fill their boxes, and a semantic segmentation that is sure of these channels."""
    semantic = 9.0 * torch.nn.functional.one_hot(channel, 3).permute(2, 0, 1)
    full = torch.full((len(labels), 28, 28), 9.0)
    return ImageRegions(
        tuple(channel.shape),
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels, dtype=torch.int64),
        full,
        semantic,  # type: ignore[arg-type]
    )


def test_a_panoptic_map_has_the_instances_and_then_the_stuff() -> None:
    channel = torch.zeros(40, 40, dtype=torch.int64)
    channel[:10], channel[30:] = 1, 2
    image = found([4, 0, 2], [0.9, 0.8, 0.3], [[5, 5, 15, 25], [25, 12, 35, 28], [0, 0, 40, 40]], channel)
    ids, segments = detector().panoptic_map(image, PanopticFpnMergingConfig(0.5, 0.5, 50))
    assert [(segment["id"], segment["isthing"], segment["category_id"]) for segment in segments] == [
        (0, True, 4), (1, True, 0), (2, False, 1), (3, False, 3),
    ]  # fmt: skip
    assert [segment["area"] for segment in segments] == [int((ids == number).sum()) for number in range(4)]
    assert ids[15, 10] == 0
    assert ids[20, 30] == 1
    assert ids[2, 2] == 2
    assert ids[39, 20] == 3
    assert ids[20, 20] == -1, "a pixel of 'other' that no instance covers"


def test_a_map_of_stuff_alone_and_a_map_of_nothing() -> None:
    model, config = detector(), PanopticFpnMergingConfig(0.5, 0.5, 50)
    ids, segments = model.panoptic_map(found([], [], [], torch.ones(20, 20, dtype=torch.int64)), config)
    assert (ids == 0).all()
    assert [(segment["category_id"], segment["area"]) for segment in segments] == [(1, 400)]
    ids, segments = model.panoptic_map(found([], [], [], torch.zeros(20, 20, dtype=torch.int64)), config)
    assert np.array_equal(ids, np.full((20, 20), -1))
    assert segments == []


# What it is built from


def test_parameters_follow_from_the_sizes_of_the_layers() -> None:
    with torch.device("meta"):
        model = PanopticFpn(config(TORCHVISION, 128), [True] * 80 + [False] * 53)
        mask_rcnn = MaskRcnn(TORCHVISION, num_classes=80)
    stages_of_level = (1, 1, 2, 3)
    convolutions = 9 * 128 * sum(256 + 128 * (stages - 1) for stages in stages_of_level)
    norms = 2 * 128 * sum(stages_of_level)
    predictor = (128 + 1) * 54
    count = {name: sum(weight.numel() for weight in each.parameters()) for name, each in (("all", model), ("things", mask_rcnn))}
    # torchvision's Mask R-CNN, whose class, box and mask predictors have 91 classes with background instead of 81.
    assert count["things"] == 44_401_393 - 10 * (5 * (1024 + 1) + (256 + 1)) == 44_347_573
    assert count["all"] - count["things"] == convolutions + norms + predictor == 1_630_774
    assert count["all"] == 45_978_347


def test_classes_of_one_sort_alone_are_refused() -> None:
    for isthing, expected in (
        ((True, True), "2 classes of things and 0 of stuff"),
        ((False,), "0 classes of things and 1 of stuff"),
    ):
        with pytest.raises(ConfigError, match=f"classes of things and of stuff for 'panoptic_fpn', found '{expected}'"):
            build_detector(config(), len(isthing), isthing=isthing)
    with pytest.raises(ConfigError, match="found '0 classes of things and 0 of stuff'"):
        build_detector(config(), 3)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("semantic_width", 40, "semantic_width: expected a multiple of 32, .*, up to 65,536, found 40"),
        ("semantic_width", 2**20, "semantic_width: expected a multiple of 32"),
        ("semantic_width", 0, "semantic_width: expected a multiple of 32"),
        ("width", None, "stages: expected one stage with width null"),
        ("mask_width", 0, "mask_width: expected 1 to 65,536, found 0"),
    ],
)
def test_a_configuration_that_fits_no_detector_is_refused(key: str, value: int | None, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        replace(config(), **{key: value})


def test_a_semantic_branch_needs_a_pyramid() -> None:
    with pytest.raises(ConfigError, match="width: expected a number of channels, because the semantic branch needs a pyramid"):
        replace(config(), stages=(4,), width=None)
