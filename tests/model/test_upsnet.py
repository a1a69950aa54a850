"""UPSNet: its samples, losses and panoptic maps, and edge cases of images and instances."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from detr_core.config import ConfigError
from detr_core.model.regions.targets import NO_CLASS
from detr_core.model.spec import detector_config
from detr_core.model.upsnet.config import UpsnetConfig, UpsnetLossConfig, UpsnetMergingConfig
from detr_core.model.upsnet.loss import upsnet_losses
from detr_core.model.upsnet.model import Upsnet, _centres
from detr_core.structures import ImageRegions, Padding, Target
from tests.kinds import UPSNET
from tests.model.test_mask_rcnn import SMALL, TORCHVISION, images
from tests.model.test_panoptic_fpn import BOTH, ISTHING, NOTHING, STUFF, THINGS, target
from tests.tiny_detector import CPU

LOSS = UpsnetLossConfig(
    objectness=1, proposals=1, classification=1, boxes=1, giou=0, masks=1, semantic=0.2, semantic_boxes=0.04, panoptic=0.1
)
MERGING = UpsnetMergingConfig(score=0.5, overlap=0.3, stuff_area=40)


def config(base: object = SMALL, width: int = 16) -> UpsnetConfig:
    values = {field.name: getattr(base, field.name) for field in fields(base) if field.name != "kind"}  # type: ignore[arg-type]
    return UpsnetConfig(**values, semantic_width=width)


def detector() -> Upsnet:
    torch.manual_seed(0)
    return Upsnet(config(), ISTHING).train()


def loss_of(targets: list[Target]) -> tuple[Upsnet, Tensor, dict[str, Tensor]]:
    model = detector()
    return model, *upsnet_losses(model.samples(*images(len(targets)), targets), len(targets), LOSS)


# Samples and losses


def test_stuff_comes_first_in_the_channels_of_the_semantic_head() -> None:
    model = detector()
    assert model.class_of_channel.tolist() == [1, 3, 0, 2, 4]
    assert model.channel_of_class[model.class_of_channel].tolist() == [0, 1, 2, 3, 4]
    (pixels,) = model.samples(*images(1), [BOTH]).pixels
    counts = dict(zip(*(values.tolist() for values in pixels.semantic_target.unique(return_counts=True)), strict=True))
    assert counts.keys() == {NO_CLASS, 0, 1, 2, 4}, "both sorts of stuff, and the first and the third of the things"
    assert pixels.semantic_logits.shape == (5, 32, 32), "at stride 3"
    torch.testing.assert_close(pixels.boxes * 3, torch.tensor([[10.0, 20.0, 50.0, 60.0], [60.0, 10.0, 90.0, 50.0]]))


def test_one_of_two_things_is_an_instance_and_the_pixels_of_the_other_are_unknown() -> None:
    (pixels,) = detector().samples(*images(1), [BOTH]).pixels
    assert pixels.panoptic_logits.shape == (4, 32, 32), "two sorts of stuff, one instance, and 'unknown'"
    things = pixels.semantic_target >= 2
    assert set(pixels.panoptic_target[things].tolist()) == {2, 3}
    assert torch.equal(pixels.panoptic_target[~things], pixels.semantic_target[~things])


def test_the_instances_are_drawn_anew_with_each_seed() -> None:
    def wanted(seed: int) -> list[int]:
        drawn = target([(4, (10, 20, 50, 60)), (0, (60, 10, 90, 50))])
        drawn.sampling_seed = seed
        return model.samples(*images(1), [drawn]).pixels[0].panoptic_target.flatten().tolist()

    model = detector()
    assert wanted(3) == wanted(3)
    assert len({tuple(wanted(seed)) for seed in range(8)}) == 2


def test_padding_takes_no_part_in_the_losses_of_the_pixels() -> None:
    model, (x, padding) = detector().eval(), images(2)
    x[1, :, 60:], padding.mask[1, 60:] = 0, True
    low = target([(4, (10, 20, 50, 60))], size=(60, 96))
    with torch.inference_mode():
        _, pixels = model.samples(x, Padding.of(padding.mask), [BOTH, low]).pixels
    assert pixels.semantic_logits.shape[1:] == pixels.panoptic_target.shape == (20, 32)


@pytest.mark.parametrize("pixels", [1, 2, 95, 96, 97, 98])
def test_a_cell_counts_if_its_centre_is_in_the_image(pixels: int) -> None:
    centres = _centres(pixels, 3, CPU).tolist()
    assert centres == ([3 * cell + 1 for cell in range(pixels) if 3 * cell + 1 < pixels] or [0])


def test_the_loss_of_a_batch_is_the_mean_over_its_images() -> None:
    _, whole, _ = loss_of([BOTH, THINGS])
    model, (x, padding) = detector(), images(2)
    each = [
        upsnet_losses(model.samples(x[i : i + 1], Padding.of(padding.mask[i : i + 1]), [one]), 2, LOSS)[0]
        for i, one in enumerate([BOTH, THINGS])
    ]
    torch.testing.assert_close(each[0] + each[1], whole, rtol=1e-4, atol=1e-5)


def test_the_losses_are_added_with_their_weights() -> None:
    _, total, parts = loss_of([BOTH])
    weights = LOSS.weights
    assert (weights["semantic"], weights["semantic_boxes"], weights["panoptic"]) == (0.2, 0.04, 0.1)
    torch.testing.assert_close(total.detach(), sum(weights[name] * part for name, part in parts.items()))


@pytest.mark.parametrize("one", [BOTH, THINGS, STUFF, NOTHING], ids=["both", "no stuff", "no instance", "nothing"])
def test_every_weight_has_a_finite_gradient_whatever_an_image_holds(one: Target) -> None:
    model, total, parts = loss_of([one])
    total.backward()
    assert all(part.isfinite() for part in parts.values()), parts
    learned = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, gradient in learned.items() if gradient is None or not gradient.isfinite().all()] == []
    if one is NOTHING:
        assert [float(parts[name]) for name in ("semantic", "semantic_boxes", "panoptic", "masks")] == [0, 0, 0, 0]


def test_the_panoptic_loss_teaches_the_mask_head_and_the_semantic_head() -> None:
    model = detector()
    weights = {field.name: 0.0 for field in fields(LOSS) if field.name not in ("kind", "beta")}
    only = UpsnetLossConfig(**weights | {"panoptic": 1.0})
    total, _ = upsnet_losses(model.samples(*images(1), [BOTH]), 1, only)
    total.backward()
    for part in (model.roi_heads.mask_predictor, model.semantic, model.backbone):
        assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in part.parameters())


# Panoptic maps


def found(boxes: list[list[float]], labels: list[int], logits: list[float], semantic: Tensor) -> ImageRegions:
    """Returns detections, each with a mask of one logit and a score below that of the one before."""
    scores = torch.linspace(0.99, 0.9, len(boxes))
    masks = torch.tensor(logits, dtype=torch.float32).reshape(-1, 1, 1).expand(-1, 28, 28)
    size = (semantic.shape[1], semantic.shape[2])
    return ImageRegions(
        size,
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores,
        torch.tensor(labels, dtype=torch.int64),
        masks,
        semantic,
    )


def semantic_of(channel: int) -> Tensor:
    """Returns semantic logits of 30 x 40 pixels in which this channel is ahead everywhere."""
    return torch.zeros(5, 30, 40).index_fill(0, torch.tensor([channel]), 3.0)


def test_a_map_has_stuff_and_instances_with_the_classes_of_the_dataset() -> None:
    semantic = semantic_of(0)
    semantic[3, 5:15, 5:20] = 8  # channel 3 is the class 2
    ids, segments = detector().panoptic_map(found([[5, 5, 19, 14]], [2], [9], semantic), MERGING)
    assert [(segment["category_id"], segment["isthing"], segment["area"]) for segment in segments] == [
        (1, False, 1200 - 150),
        (2, True, 150),
    ]
    assert [segment["id"] for segment in segments] == [0, 1]
    assert (ids[5:15, 5:20] == 1).all()
    assert int((ids == 0).sum()) == 1050
    assert ids.dtype == np.int32


def test_two_instances_of_a_class_are_two_segments() -> None:
    semantic = semantic_of(0)
    semantic[3, :10, :30] = 8
    _, segments = detector().panoptic_map(found([[0, 0, 9, 9], [20, 0, 29, 9]], [2, 2], [9, 9], semantic), MERGING)
    assert [(segment["category_id"], segment["area"]) for segment in segments if segment["isthing"]] == [(2, 100), (2, 100)]


def test_without_instances_a_map_has_stuff_alone() -> None:
    ids, segments = detector().panoptic_map(found([], [], [], semantic_of(1)), MERGING)
    assert [(segment["category_id"], segment["area"]) for segment in segments] == [(3, 1200)]
    assert (ids == 0).all()


def test_without_instances_and_stuff_every_pixel_is_of_no_segment() -> None:
    ids, segments = detector().panoptic_map(found([], [], [], semantic_of(2)), MERGING)
    assert segments == []
    assert (ids == -1).all()


def test_small_stuff_is_of_no_segment() -> None:
    merging = UpsnetMergingConfig(stuff_area=1201)
    assert detector().panoptic_map(found([], [], [], semantic_of(1)), merging)[1] == []


@pytest.mark.parametrize(
    ("box", "logit"), [([50.0, 5.0, 60.0, 14.0], 9.0), ([-30.0, -30.0, -20.0, -20.0], 9.0), ([5.0, 5.0, 19.0, 14.0], -9.0)]
)
def test_a_box_outside_of_the_image_and_an_empty_mask_change_nothing(box: list[float], logit: float) -> None:
    semantic = semantic_of(1)
    expected = detector().panoptic_map(found([], [], [], semantic), MERGING)
    ids, segments = detector().panoptic_map(found([box], [2], [logit], semantic), MERGING)
    np.testing.assert_array_equal(ids, expected[0])
    assert segments == expected[1]


# The configuration


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"semantic_width": 0}, "semantic_width: expected 1 to 65,536, found 0"),
        ({"width": None, "stages": [4]}, "width: expected a number of channels, because the semantic head needs a pyramid"),
    ],
)
def test_a_detector_that_can_not_be_built_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        detector_config(UPSNET["detector"] | changes, "tiny")


def test_the_published_detector_has_the_parameters_of_its_layers() -> None:
    # Mask R-CNN with 81 classes and background, as Panoptic FPN has it, and the semantic head: deformable convolutions of 256,
    # 128 and 128 channels, each with a convolution that predicts 18 offsets, and a classifier of 4 x 128 channels.
    with torch.device("meta"):
        model = Upsnet(config(TORCHVISION, 128), [True] * 80 + [False] * 53)
    own = sum(9 * (128 + 18) * channels + 128 + 18 for channels in (256, 128, 128)) + 133 * (512 + 1)
    assert sum(map(torch.numel, model.semantic.parameters())) == own == 741_435
    assert sum(map(torch.numel, model.parameters())) == 44_347_573 + own
