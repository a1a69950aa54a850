"""Checkpoints of torchvision's Faster R-CNN and Mask R-CNN: outputs equal the library's, and what is written is what was read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import (
    FasterRCNN,
    MaskRCNN,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d

from detr_core.checksums import digest
from detr_core.model.checkpoint import CheckpointError, export_checkpoint, load_checkpoint, save_checkpoint
from detr_core.model.layouts import layout_of
from detr_core.model.regions import torchvision_layout
from detr_core.model.regions.torchvision_layout import COUNTER
from detr_core.structures import Padding
from tests.model.random_weights import randomised

CPU = torch.device("cpu")
SIZE = (96, 128)  # torchvision derives the strides from the sizes of the maps, which must divide the image's


def version_1(kind: Callable[..., Any] = FasterRCNN, classes: int = 91, norm: Any = FrozenBatchNorm2d) -> Any:
    """Returns a detector of torchvision's first version, on a small ResNet. The published ones have frozen batch norm."""
    return kind(_resnet_fpn_extractor(resnet18(weights=None, norm_layer=norm), 3), classes)


def version_2(kind: Callable[..., Any], **parts: Any) -> Any:
    """Returns a detector of torchvision's second version, on a small ResNet. parts: those of Mask R-CNN."""
    box_head = FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=nn.BatchNorm2d)
    backbone = _resnet_fpn_extractor(resnet18(weights=None), 3, norm_layer=nn.BatchNorm2d)
    return kind(backbone, 91, rpn_head=RPNHead(256, 3, conv_depth=2), box_head=box_head, **parts)


THEIRS: dict[str, Callable[[], Any]] = {
    "frozen": version_1,
    "trainable": lambda: version_1(norm=nn.BatchNorm2d),
    "version 2": lambda: version_2(FasterRCNN),
    "masks": lambda: version_1(MaskRCNN),
    "masks, version 2": lambda: version_2(MaskRCNN, mask_head=MaskRCNNHeads(256, [256] * 4, 1, norm_layer=nn.BatchNorm2d)),
}
OFFICIAL = (fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2, maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2)


def random(model: Any) -> Any:
    """Returns the detector with random weights whose scores differ from class to class, in eval mode."""
    randomised(model)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(2)
    return model


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def images() -> Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(3))


def expected(model: Any) -> list[dict[str, Tensor]]:
    x, sizes = images(), [SIZE, SIZE]
    maps = model.backbone(x)
    proposals, _ = model.rpn(ImageList(x, sizes), maps)
    detections, _ = model.roi_heads(maps, proposals, sizes)
    return detections  # type: ignore[no-any-return]


def require_close(model: Any, theirs: Any) -> None:
    """Asserts that both detectors give the same detections."""
    output = model(images(), Padding.none(2, SIZE, CPU))
    height, width = SIZE
    for image, detections in enumerate(expected(theirs)):
        assert len(detections["scores"]) > 10, "without detections nothing would be compared"
        labels, boxes = output.labels[image] + 1, output.boxes[image] * torch.tensor([width, height, width, height])
        ours, theirs_order = order(labels, boxes), order(detections["labels"], detections["boxes"])
        assert torch.equal(labels[ours], detections["labels"][theirs_order])
        torch.testing.assert_close(output.scores[image][ours], detections["scores"][theirs_order], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(boxes[ours], detections["boxes"][theirs_order], rtol=1e-4, atol=1e-2)
        if "masks" in detections:
            masks = output.mask_logits[image].sigmoid()
            torch.testing.assert_close(masks[ours], detections["masks"][theirs_order, 0], rtol=1e-4, atol=1e-4)


def order(labels: Tensor, boxes: Tensor) -> Tensor:
    """Returns an order of detections that does not depend on their scores, which can be almost equal."""
    return (1000 * labels.double() + boxes.double().sum(1)).argsort()


def same(file: Path, state: dict[str, Tensor]) -> bool:
    written = torch.load(file, weights_only=True)["model"]
    return written.keys() == state.keys() and all(torch.equal(written[name], value) for name, value in state.items())


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long if name == "masks" else ()) for name in THEIRS])
@torch.inference_mode()
def test_outputs_equal_torchvisions_and_the_written_file_equals_the_read_one(name: str, tmp_path: Path) -> None:
    theirs = random(THEIRS[name]())
    state = {key: value + 7 if key.endswith("tracked") else value for key, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / "theirs.pth")
    checkpoint = load_checkpoint(tmp_path / "theirs.pth", CPU)
    assert checkpoint.model.config.kind == ("mask_rcnn" if "masks" in name else "faster_rcnn")
    assert checkpoint.model.config.version == (2 if "version 2" in name else 1)
    assert checkpoint.model.config.backbone.norm_eps == 1e-5
    require_close(checkpoint.model, theirs)

    assert [category.id for category in checkpoint.categories] == list(range(1, 91))
    assert sum(category.used for category in checkpoint.categories) == 80
    assert (checkpoint.categories[0].name, checkpoint.categories[-1].name) == ("person", "toothbrush")

    save_checkpoint(tmp_path / "ours.pt", checkpoint.model, checkpoint.categories, checkpoint.meta)
    export_checkpoint(load_checkpoint(tmp_path / "ours.pt", CPU), tmp_path / "out.pth")
    assert same(tmp_path / "out.pth", state)
    back = load_checkpoint(tmp_path / "out.pth", CPU)
    assert (back.model.config, back.categories, back.meta) == (checkpoint.model.config, checkpoint.categories, checkpoint.meta)


@pytest.mark.parametrize("build", OFFICIAL, ids=lambda build: build.__name__)
def test_the_weights_of_torchvisions_constructors_fit(build: Callable[..., Any]) -> None:
    with torch.device("meta"):
        state = build(weights=None, weights_backbone=None).state_dict()
    tensors = {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in state.items()}
    layout = layout_of(list(tensors))
    assert layout is not None
    model, categories, file_details = layout.read({"model": tensors}, "theirs.pth", None)
    written = layout.write(model, categories, file_details, "ours.pth")["model"]
    assert {name: value.shape for name, value in written.items()} == {name: value.shape for name, value in state.items()}
    assert (model.config.backbone.name, model.config.anchors) == ("resnet50", (32, 64, 128, 256, 512))


@pytest.mark.parametrize("kind", [FasterRCNN, pytest.param(MaskRCNN, marks=pytest.mark.long)])
@torch.inference_mode()
def test_the_published_weights_have_no_eps(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, file = random(version_1(kind)), tmp_path / "renamed.pth"
    for key, value in theirs.state_dict().items():  # small variances, for which eps makes a difference
        if key.endswith("running_var"):
            value.mul_(1e-4)
        elif key.endswith(("bn1.weight", "bn2.weight", "downsample.1.weight")):
            value.mul_(1e-2)
    torch.save(theirs.state_dict(), file)
    require_close(load_checkpoint(file, CPU).model, theirs)  # as anything that was trained anew

    monkeypatch.setattr(torchvision_layout, "RELEASED_WITHOUT_EPS", ("00000000", digest(file)[:8]))
    published = load_checkpoint(file, CPU)
    assert published.model.config.backbone.norm_eps == 0.0
    with pytest.raises(AssertionError):
        require_close(published.model, theirs)
    overwrite_eps(theirs, 0.0)
    require_close(published.model, theirs)

    save_checkpoint(tmp_path / "ours.pt", published.model, published.categories, published.meta)
    again = load_checkpoint(tmp_path / "ours.pt", CPU)
    export_checkpoint(again, tmp_path / "out.pth")
    for checkpoint in (again, load_checkpoint(tmp_path / "out.pth", CPU)):
        assert checkpoint.model.config == published.model.config
        require_close(checkpoint.model, theirs)


def test_the_published_files_are_known_by_their_checksums() -> None:
    assert torchvision_layout.RELEASED_WITHOUT_EPS == ("258fb6c6", "bf2d0c1e")


def test_names_of_earlier_versions_are_read(tmp_path: Path) -> None:
    theirs = random(version_1(MaskRCNN))
    state = theirs.state_dict()
    former = {}
    for key, value in state.items():
        name = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for number in range(4):
            name = name.replace(f"mask_head.{number}.0.", f"mask_head.mask_fcn{number + 1}.")
            name = name.replace(f"blocks.{number}.0.", f"blocks.{number}.")
        former[name] = value
    assert len(former.keys() - state.keys()) == 2 * (1 + 4 + 8)
    torch.save(former, tmp_path / "former.pth")
    export_checkpoint(load_checkpoint(tmp_path / "former.pth", CPU), tmp_path / "out.pth")
    assert same(tmp_path / "out.pth", state)


def test_classes_of_other_data_have_no_names(tmp_path: Path) -> None:
    torch.save({"model": version_1(classes=4).state_dict(), "epoch": 25}, tmp_path / "theirs.pth")
    categories = load_checkpoint(tmp_path / "theirs.pth", CPU).categories
    assert [(category.id, category.name) for category in categories] == [(1, ""), (2, ""), (3, "")]


def test_weights_of_another_detector_are_refused_and_the_error_names_the_expected_and_the_given_shape(tmp_path: Path) -> None:
    state = version_1(classes=4).state_dict()
    file = tmp_path / "theirs.pth"

    def refused(changes: dict[str, Tensor], without: str = "") -> str:
        torch.save({key: value for key, value in (state | changes).items() if key != without}, file)
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(file, CPU)
        return str(error.value)

    title = "theirs.pth: the weights are not those of torchvision's Faster R-CNN: "
    message = refused({"roi_heads.box_predictor.bbox_pred.weight": torch.zeros(24, 1024)})
    assert message.endswith(f"{title}roi_heads.box_predictor.bbox_pred.weight: expected shape [16, 1024], found [24, 1024]")
    message = refused({"rpn.head.cls_logits.weight": torch.zeros(9, 256, 1, 1)})
    assert message.endswith(f"{title}rpn.head.cls_logits.weight: expected shape [3, 256, 1, 1], found [9, 256, 1, 1]")
    assert refused({}, without="rpn.head.bbox_pred.bias").endswith(f"{title}missing rpn.head.bbox_pred.bias")
    message = refused({"roi_heads.keypoint_head.0.weight": torch.zeros(1)})
    assert message.endswith(f"{title}unknown roi_heads.keypoint_head.0.weight")
    message = refused({"rpn.head.bbox_pred.bias": torch.zeros(12, dtype=torch.int64)})
    assert message.endswith("rpn.head.bbox_pred.bias: expected a dense tensor of floating point numbers, found torch.int64")
    last_half = dict(list(state.items())[len(state) // 2 :])
    torch.save(last_half, file)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(file, CPU)
    assert f"{title}missing backbone.body.conv1.weight, backbone.body.bn1.weight" in str(error.value)
    assert str(error.value).endswith(" others")


WRONG: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Any]], str]] = {
    "two names": (
        lambda state: {"rpn.head.conv.weight": state["rpn.head.conv.0.0.weight"]},
        "rpn.head.conv.weight: expected one name of each weight, found rpn.head.conv.0.0.weight, too; remove one of them",
    ),
    "a long counter": (
        lambda _: {f"a{COUNTER}": torch.zeros(3)},
        "expected one whole number from 0, found a tensor of shape [3]",
    ),
    "no number": (lambda _: {f"a{COUNTER}": torch.tensor(float("nan"))}, "expected one whole number from 0, found nan"),
    "no value": (
        lambda _: {f"a{COUNTER}": torch.zeros((), device="meta")},
        "expected one whole number from 0, found a tensor of",
    ),
    "a text": (lambda _: {f"a{COUNTER}": "abc"}, "expected one whole number from 0, found 'abc'"),
    "an int as name": (lambda _: {3: torch.zeros(1)}, "3: expected the name of a weight as text"),  # type: ignore[dict-item]
    "no classes": (
        lambda state: {name: value[:1] for name, value in state.items() if "cls_score" in name},
        "the class head: expected 1 class or more, found 0",
    ),
    "no rows": (
        lambda state: {name: value[:0] for name, value in state.items() if "cls_score" in name},
        "the class head: expected 1 class or more, found 0",
    ),
    "variances": (
        lambda state: {"backbone.body.bn1.running_var": -state["backbone.body.bn1.running_var"]},
        "backbone.0.body.bn1.running_var: expected variances, found 64 of 64 that are below 0",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", [FasterRCNN, MaskRCNN])
def test_invalid_values_are_refused(wrong: str, kind: Callable[..., Any], tmp_path: Path) -> None:
    state, (changes, expected) = version_1(kind, classes=4).state_dict(), WRONG[wrong]
    torch.save(state | changes(state), tmp_path / "theirs.pth")
    with pytest.raises(CheckpointError, match=r"theirs\.pth: .*" + re.escape(expected)):
        load_checkpoint(tmp_path / "theirs.pth", CPU)
