"""Every variant of every study of the coco profile is built, and its parameters are those that the paper publishes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detr_core.model.spec import build_detector
from detr_core.plots.study import published
from flows.profile.settings import Profile, can_have_mask_head, load, variants

CLASSES = {"instances": 91, "panoptic": 250}  # the published models have an output for each category id of COCO up to the last
ROWS = {
    ("encoder-depth", "0"): "0 layers",
    ("encoder-depth", "3"): "3 layers",
    ("encoder-depth", "6"): "6 layers",
    ("encoder-depth", "12"): "12 layers",
    ("feed-forward", "with"): "with",
    ("feed-forward", "without"): "without",
    ("backbones", "DETR"): "DETR",
    ("backbones", "DETR-DC5"): "DETR-DC5",
    ("backbones", "DETR-R101"): "DETR-R101",
    ("backbones", "DETR-DC5-R101"): "DETR-DC5-R101",
    ("baselines", "detr"): "DETR",
    ("deformable", "single scale"): "single scale",
    ("deformable", "single scale, DC5"): "single scale, DC5",
    ("deformable", "four levels"): "four levels",
    ("deformable", "refinement"): "+ iterative box refinement",
    ("deformable", "two-stage"): "++ two-stage",
    ("baselines", "faster-rcnn-dc5"): "Faster R-CNN DC5",
    ("baselines", "faster-rcnn"): "Faster R-CNN FPN",
    ("baselines", "faster-rcnn-r101"): "Faster R-CNN R101-FPN",
    ("baselines", "faster-rcnn-dc5-plus"): "Faster R-CNN DC5+",
    ("baselines", "faster-rcnn-plus"): "Faster R-CNN FPN+",
    ("baselines", "faster-rcnn-r101-plus"): "Faster R-CNN R101-FPN+",
}
BASE = 41.3  # the variants of these studies differ in their training, or in their positions: rows of 41 million parameters
LIKE_THE_BASE = ("positions", "losses", "schedule", "crops")


@pytest.fixture(scope="module")
def coco() -> Profile:
    """The profile of the paper's experiment."""
    return load("coco")


def parameters(variant: Profile, mask_head: bool) -> tuple[float, float]:
    """Returns the millions of trained parameters, and of all parameters, of a variant's detector."""
    backbone = replace(variant.detector.backbone, weights=None)
    with torch.device("meta"):
        maps = "published" if mask_head and can_have_mask_head(variant) else None
        detector, isthing = replace(variant.detector, backbone=backbone), [True] * 80 + [False] * 53
        model = build_detector(detector, CLASSES[variant.train_detection.targets], maps, isthing)
    counts = [parameter.numel() / 1e6 for parameter in model.parameters()]
    trained = [parameter.numel() / 1e6 for parameter in model.parameters() if parameter.requires_grad]
    return sum(trained), sum(counts)


def test_every_variant_is_built_and_every_published_number_of_parameters_is_reached(coco: Profile) -> None:
    compared = set()
    for study, config in coco.studies.training.items():
        rows = {row["model"]: row.get("parameters") for row in published(study)["rows"]}
        for name, variant in variants(coco, study).items():
            counts = parameters(variant, config.trains_masks)
            assert min(counts) > 10
            if study in LIKE_THE_BASE:
                assert counts[0] == pytest.approx(BASE, abs=0.05), f"{study}: {name}"
            if (study, name) in ROWS:
                expected = rows[ROWS[study, name]]
                # The paper does not say whether the frozen stages of the backbone count.
                assert any(count == pytest.approx(expected, rel=0.01) for count in counts), f"{study}: {name}"
                compared.add((study, name))
    assert compared == set(ROWS)


def test_deformable_detr_is_the_same_in_both_studies_that_train_it(coco: Profile) -> None:
    assert variants(coco, "baselines")["deformable"] == variants(coco, "deformable")["four levels"]


def test_mask_rcnn_and_panoptic_fpn_have_the_parameters_of_their_layers(coco: Profile) -> None:
    # torchvision's published Mask R-CNN has 44,401,393 for 91 classes with background, here there are 92. tests/model has the sum
    # of Panoptic FPN's layers with 81 classes; a ResNet-101 has 18,939,904 more weights of convolutions than a ResNet-50.
    mask_rcnn = parameters(variants(coco, "baselines")["mask-rcnn"], False)[1]
    assert mask_rcnn == pytest.approx((44_401_393 + 5 * 1025 + 257) / 1e6, abs=1e-6)
    panoptic = variants(coco, "panoptic")
    assert parameters(panoptic["Panoptic FPN++ R50"], False)[1] == pytest.approx(45.978347, abs=1e-6)
    assert parameters(panoptic["Panoptic FPN++ R101"], False)[1] == pytest.approx(45.978347 + 18.939904, abs=1e-6)


def test_a_mask_head_adds_1_3_million_parameters(coco: Profile) -> None:
    variant = variants(coco, "panoptic")["DETR R50"]
    assert parameters(variant, True)[0] - parameters(variant, False)[0] == pytest.approx(1.33, abs=0.01)
