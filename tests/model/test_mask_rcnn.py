"""Mask R-CNN: outputs and losses equal torchvision's, objects without masks teach none, and edge cases."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn
from torchvision.models.detection.image_list import ImageList

from detr_core.evaluate.boxes import postprocess
from detr_core.evaluate.inference import Classes
from detr_core.evaluate.segmentation import Extent, segmentation
from detr_core.model.common.config import BackboneConfig
from detr_core.model.mask_rcnn.config import MaskRcnnConfig, MaskRcnnLossConfig
from detr_core.model.regions import masks
from detr_core.model.regions.mask_losses import mask_rcnn_losses
from detr_core.model.regions.masks import MaskRcnn, pasted
from detr_core.model.regions.parts import truth_of
from detr_core.structures import ImageRegions, Padding, RegionOutput, Target
from tests.model import test_faster_rcnn as faster_rcnn
from tests.model.batches import images as random_images
from tests.model.test_faster_rcnn import target

TORCHVISION = MaskRcnnConfig(
    backbone=BackboneConfig("resnet50", dilation=False, weights=None, norm="frozen", frozen_stages=2),
    stages=(1, 2, 3, 4),
    width=256,
    anchors=(32.0, 64.0, 128.0, 256.0, 512.0),
    proposals=1000,
    sampled_anchors=256,
    sampled_proposals=512,
    head_width=1024,
    mask_width=256,
)
SPREAD = 0.5  # of the weights of torchvision's class head, with which scores of objects are between 0 and 1
LOSS = MaskRcnnLossConfig(objectness=1, proposals=1, classification=1, boxes=1, giou=0, masks=1)


def images(count: int = 2) -> tuple[Tensor, Padding]:
    """Returns random images of 96 x 96 pixels and their padding, of which there is none."""
    return random_images(count, 96, 96)


def with_masks(config: Any) -> MaskRcnnConfig:
    """Returns the configuration of a Faster R-CNN as that of a small Mask R-CNN."""
    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "kind"}
    return MaskRcnnConfig(**values, mask_width=8)


SMALL, RESNET, DC5 = map(with_masks, (faster_rcnn.SMALL, faster_rcnn.RESNET, faster_rcnn.DC5))


def detector(config: MaskRcnnConfig = SMALL) -> MaskRcnn:
    torch.manual_seed(0)
    return MaskRcnn(config, num_classes=3).eval()


def with_ellipses(plain: Target) -> Target:
    """Returns the target with an elliptic mask in each of its boxes."""
    height, width = plain.size
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    cx, cy, w, h = plain.boxes.view(-1, 4, 1, 1).unbind(1)
    return replace(plain, masks=((x - cx) / w) ** 2 + ((y - cy) / h) ** 2 < 0.25)


TARGETS = [with_ellipses(plain) for plain in faster_rcnn.TARGETS]


def torchvisions_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of torchvision's model by this project's names."""
    renamed = {
        name.replace("backbone.body.", "backbone.0.body.").replace("backbone.fpn.", "backbone.1."): value
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert len(renamed) == 307
    return renamed


def drawn_weights(model: nn.Module) -> None:
    """Gives torchvision's model weights with which it finds objects of many classes and sizes."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif name.endswith("running_mean"):
                value.copy_(0.1 * torch.randn(value.shape, generator=generator))
            elif name.endswith("bn3.weight"):
                value.fill_(0.2)  # so that the values do not grow from block to block, and rounding errors with them
            elif name.startswith("roi_heads.box_predictor.cls_score") or "mask_fcn_logits" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * SPREAD)


@pytest.fixture(scope="module")
def oracle() -> nn.Module:
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91, min_size=128, max_size=192).eval()
    drawn_weights(model)
    return model


@pytest.mark.parametrize("shapes", [[(128, 192)], [(96, 130), (200, 150)]])
@torch.inference_mode()
def test_outputs_are_torchvisions(oracle: nn.Module, shapes: list[tuple[int, int]]) -> None:
    ours = MaskRcnn(TORCHVISION, num_classes=90).eval()
    ours.load_state_dict(torchvisions_names(oracle.state_dict()))
    pictures = [torch.rand(3, *shape, generator=torch.Generator().manual_seed(number)) for number, shape in enumerate(shapes)]
    expected = oracle(pictures)
    batch, _ = oracle.transform(pictures)  # type: ignore[operator]
    padding = torch.ones(len(pictures), *batch.tensors.shape[-2:], dtype=torch.bool)
    for image, (height, width) in zip(padding, batch.image_sizes, strict=True):
        image[:height, :width] = False
    output = ours(batch.tensors, Padding.of(padding))
    found = postprocess(output, shapes, empty_slot_override=True)
    assert output.mask_logits is not None
    for number, (image, theirs) in enumerate(zip(found, expected, strict=True)):
        assert len(theirs["scores"]) > 20
        torch.testing.assert_close(image.labels + 1, theirs["labels"])
        torch.testing.assert_close(image.scores, theirs["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(image.boxes, theirs["boxes"], rtol=1e-4, atol=1e-3)
        masks = pasted(output.mask_logits[number], image.boxes, shapes[number])
        torch.testing.assert_close(masks, theirs["masks"][:, 0], rtol=1e-4, atol=1e-4)
        extents = [Extent(tuple(padding.shape[1:]), size, shape) for size, shape in zip(batch.image_sizes, shapes, strict=True)]  # type: ignore[arg-type]
        everything = Classes(torch.arange(90).numpy(), torch.ones(91, dtype=torch.bool), torch.ones(91, dtype=torch.bool))
        binary = segmentation(ours, output, found, extents, everything, None).instances(number, image)
        sure = (theirs["masks"][:, 0] - 0.5).abs() > 1e-4
        assert torch.equal(binary[sure], (theirs["masks"][:, 0] > 0.5)[sure])


def test_parameters_are_torchvisions() -> None:
    with torch.device("meta"):
        model = MaskRcnn(TORCHVISION, num_classes=90)
    released = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"]
    assert sum(weight.numel() for weight in model.parameters()) == released == 44_401_393


def loss_of(model: MaskRcnn, x: Tensor, padding: Padding, targets: list[Target]) -> tuple[Tensor, dict[str, Tensor]]:
    return mask_rcnn_losses(model.samples(x, padding, targets), len(targets), LOSS)


def torchvisions_loss(model: MaskRcnn, x: Tensor, targets: list[Target]) -> dict[str, Tensor]:
    shapes = [(96, 96)] * len(targets)
    truth: list[dict[str, Any]] = [truth_of(each, shape) for each, shape in zip(targets, shapes, strict=True)]
    model.rpn.fg_bg_sampler.seeds = [each.sampling_seed for each in targets]
    model.roi_heads.fg_bg_sampler.seeds = [each.sampling_seed + 1 for each in targets]
    maps = OrderedDict(enumerate(model._maps(x)))
    proposals, _ = model.rpn(ImageList(x, shapes), maps, truth)
    for name, pooling in (("box_roi_pool", model.roi_heads.box_roi_pool), ("mask_roi_pool", model.roi_heads.mask_roi_pool)):
        setattr(model.roi_heads, name, _Adapted(pooling))
    _, losses = model.roi_heads(maps, proposals, shapes, truth)
    for name in ("box_roi_pool", "mask_roi_pool"):
        setattr(model.roi_heads, name, getattr(model.roi_heads, name).pooling)
    return losses  # type: ignore[no-any-return]


class _Adapted(nn.Module):
    """This project's pooling as torchvision's heads call it."""

    def __init__(self, pooling: nn.Module) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, maps: dict[int, Tensor], boxes: list[Tensor], shapes: object) -> Any:
        return self.pooling(list(maps.values())[:4], boxes)


def test_the_mask_loss_of_an_image_is_torchvisions() -> None:
    model = detector(RESNET).train()
    x, padding = images()
    whole, parts = loss_of(model, x, padding, TARGETS)
    each = []
    for place in range(2):
        one, alone = loss_of(model, x[place : place + 1], Padding.of(padding.mask[place : place + 1]), TARGETS[place : place + 1])
        expected = torchvisions_loss(model, x[place : place + 1], TARGETS[place : place + 1])
        torch.testing.assert_close(alone["masks"], expected["loss_mask"].detach(), rtol=1e-4, atol=1e-5)
        each.append(alone["masks"])
        assert one > 0
    torch.testing.assert_close(parts["masks"], (each[0] + each[1]) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        whole, sum(parts[name] for name in ("objectness", "proposals", "classification", "boxes", "masks"))
    )


def test_what_is_wanted_of_a_mask_is_the_objects_mask_in_the_box() -> None:
    samples = detector().train().samples(*images(), TARGETS)
    assert samples.mask_logits.shape == samples.mask_targets.shape == (len(samples.mask_image), 28, 28)
    assert len(samples.mask_image) == len(samples.regions.positive_image) > 0
    # Each object is a proposal itself. An ellipse covers pi / 4 of its box.
    shares = samples.mask_targets.mean((1, 2))
    assert (shares - torch.pi / 4).abs().min() < 0.01
    assert samples.mask_targets[:, 14, 14].max() == 1
    assert samples.mask_targets[(shares - torch.pi / 4).abs() < 0.01][:, 0, 0].max() == 0


def test_an_object_without_a_mask_teaches_boxes_but_no_mask() -> None:
    model = detector().train()
    without = replace(TARGETS[1], masks=torch.zeros(1, 96, 96, dtype=torch.bool))
    samples = model.samples(*images(), [TARGETS[0], without])
    assert (samples.regions.positive_image == 1).any()
    assert not (samples.mask_image == 1).any()
    model.samples(*images(), TARGETS)
    with pytest.raises(AssertionError, match="expected targets with masks, found a dataset that was created without masks"):
        model.samples(*images(), [replace(each, masks=None) for each in TARGETS])


@pytest.mark.parametrize("config", [SMALL, DC5])
def test_a_batch_of_nothing_still_has_gradients_for_every_weight(config: MaskRcnnConfig) -> None:
    model = detector(config).train()
    total, parts = loss_of(model, *images(), [with_ellipses(target([], [])), with_ellipses(target([], []))])
    total.backward()
    assert parts["masks"] == 0
    gradients = [weight.grad for weight in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_an_image_in_which_nothing_is_found_has_no_masks() -> None:
    model = detector()
    with torch.inference_mode():
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
        output = model(*images())
    assert isinstance(output, RegionOutput)
    assert output.mask_logits is not None
    assert [masks.shape for masks in output.mask_logits] == [(0, 28, 28)] * 2
    nothing = ImageRegions((10, 20), *(torch.zeros(0, *rest) for rest in ((4,), (), (), (28, 28))), None)  # type: ignore[arg-type]
    assert model.instance_masks(nothing).shape == (0, 10, 20)


def test_masks_are_the_same_however_many_are_pasted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    low = torch.rand(7, 2, generator=generator) * 40
    boxes = torch.cat([low, low + 30 * torch.rand(7, 2, generator=generator)], 1)
    found = ImageRegions((50, 60), boxes, torch.ones(7), torch.zeros(7), torch.randn(7, 28, 28, generator=generator), None)
    model = detector()
    at_once = model.instance_masks(found)
    monkeypatch.setattr(masks, "PASTED_PIXELS", 2 * 50 * 60)
    assert torch.equal(model.instance_masks(found), at_once)
    assert at_once.any()
    assert torch.equal(at_once, pasted(found.mask_logits, boxes, (50, 60)) > 0.5)


def test_a_full_mask_fills_its_box_in_an_image_of_another_size() -> None:
    model, size = detector(), (40, 80)
    full = ImageRegions(
        size, torch.tensor([[10.0, 5, 50, 25]]), torch.ones(1), torch.zeros(1), torch.full((1, 28, 28), 9.0), None
    )
    (mask,) = model.instance_masks(full)
    rows, columns = mask.nonzero().unbind(1)
    assert mask.shape == size
    assert (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1) == pytest.approx(
        (10, 5, 50, 25), abs=2
    )
