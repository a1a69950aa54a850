"""Multi-scale testing: the semantic segmentation is a mean over sizes and mirror images, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from detr_core.config import ConfigError, build
from detr_core.data.coco_dataset import CocoDataset
from detr_core.evaluate.config import (
    EvaluateConfig,
    MergingConfig,
    MultiScaleConfig,
)
from detr_core.evaluate.multi_scale import detected
from detr_core.evaluate.predictions import predict
from detr_core.model.checkpoint import Checkpoint
from detr_core.model.common.detector import Detector
from detr_core.model.panoptic_fpn.config import PanopticFpnMergingConfig
from detr_core.model.upsnet.config import UpsnetMergingConfig
from detr_core.structures import Padding, RegionOutput
from flows.profile.settings import Profile
from flows.tracking.detector_model import DetectorModel
from tests.conftest import tiny_parameters
from tests.evaluate.test_kinds import sure
from tests.tiny_detector import CPU, detector, evaluation_data

SEVERAL = MultiScaleConfig((0.75, 1.0, 1.25), flip=True)
KINDS = ["panoptic_fpn", "upsnet"]


def config(multi_scale: MultiScaleConfig | None) -> EvaluateConfig:
    low = (PanopticFpnMergingConfig(0.2, 0.5, 4), UpsnetMergingConfig(0.2, 0.3, 4))
    return EvaluateConfig(4, None, True, MergingConfig(0.6, 4, "published"), *low, multi_scale)


def semantic_of(model: Detector, images: Tensor, multi_scale: MultiScaleConfig | None) -> Tensor:
    with torch.inference_mode():
        output = detected(model, images, Padding.of(torch.zeros(images[:, 0].shape, dtype=torch.bool)), multi_scale)
    assert isinstance(output, RegionOutput)
    assert output.semantic is not None
    return output.semantic


def pictures(height: int = 60, width: int = 84) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_panoptic_maps_change(kind: str, dataset: CocoDataset, tmp_path: Path) -> None:
    trained = Checkpoint(sure(kind, dataset), dataset.categories, {})
    torch.nn.init.normal_(trained.model.semantic.get_parameter(_last(trained.model)))  # type: ignore[union-attr,operator]
    for name, multi_scale in (("one", None), ("several", SEVERAL)):
        (tmp_path / name).mkdir()
        predict(trained, evaluation_data(dataset), config(multi_scale), tmp_path / name)
    for name in ("bbox.json", "segm.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "several" / name).read_bytes()
    assert (tmp_path / "one" / "panoptic.json").read_bytes() != (tmp_path / "several" / "panoptic.json").read_bytes()


def _last(model: Detector) -> str:
    return next(name for name, _ in model.semantic.named_parameters() if name in ("classifier.weight", "predictor.weight"))  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KINDS)
def test_one_size_gives_the_detectors_own_segmentation(kind: str, dataset: CocoDataset) -> None:
    model, images = sure(kind, dataset), pictures()
    torch.testing.assert_close(
        semantic_of(model, images, MultiScaleConfig((1.0,), flip=False)), semantic_of(model, images, None), rtol=0, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_the_mean_over_the_sizes(kind: str, dataset: CocoDataset) -> None:
    model, images = sure(kind, dataset), pictures()
    of_each = [semantic_of(model, images, MultiScaleConfig((scale,), flip=False)) for scale in (0.5, 1.0, 1.5)]
    whole = semantic_of(model, images, MultiScaleConfig((0.5, 1.0, 1.5), flip=False))
    torch.testing.assert_close(whole, torch.stack(of_each).mean(0))
    assert not torch.allclose(of_each[0], of_each[1], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mirror_image_has_the_mirrored_segmentation(kind: str, dataset: CocoDataset) -> None:
    model, images = sure(kind, dataset), pictures()  # the strides divide its sides
    torch.testing.assert_close(
        semantic_of(model, images.flip(-1), SEVERAL).flip(-1), semantic_of(model, images, SEVERAL), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_any_size_keeps_the_size_of_its_segmentation(kind: str, dataset: CocoDataset) -> None:
    model, images = sure(kind, dataset), pictures(41, 67)
    several = MultiScaleConfig((0.1, 1.0, 1.3), flip=True)
    assert semantic_of(model, images, several).shape == semantic_of(model, images, None).shape


def test_a_detector_without_a_semantic_segmentation_is_refused(dataset: CocoDataset, tmp_path: Path) -> None:
    said = "evaluate.multi_scale: expected null with detector.kind 'detr', because only 'panoptic_fpn' or 'upsnet' segment"
    trained = Checkpoint(detector(dataset.categories, mask_head=True), dataset.categories, {})
    with pytest.raises(ConfigError, match=said):
        predict(trained, evaluation_data(dataset), config(SEVERAL), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match=said):
        DetectorModel(trained, config(SEVERAL), CPU)
    content = tiny_parameters() | {"studies": {"evaluating": {}, "training": {}}}
    content["evaluate"] |= {"multi_scale": {"scales": [1, 2], "flip": False}}
    with pytest.raises(ConfigError, match=said):
        build(Profile, content, "tiny.yaml")


@pytest.mark.parametrize("scales", [[], [0.0, 1.0], [1.0, 1.0], [-1.0]])
def test_invalid_sizes_are_refused(scales: list[float]) -> None:
    with pytest.raises(ConfigError, match="scales: expected one or more different numbers above 0"):
        build(MultiScaleConfig, {"scales": scales, "flip": True}, "tiny.yaml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": 1.5}, "score: expected a score between 0 and 1, found 1.5"),
        ({"overlap": -0.1}, "overlap: expected a share between 0 and 1, found -0.1"),
        ({"stuff_area": -1}, "stuff_area: expected 0 or more pixels, found -1"),
    ],
)
def test_an_invalid_merging_is_refused(changes: dict[str, float], said: str) -> None:
    content = {"score": 0.6, "overlap": 0.3, "stuff_area": 4096} | changes
    with pytest.raises(ConfigError, match=said):
        build(UpsnetMergingConfig, content, "tiny.yaml")
