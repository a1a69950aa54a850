"""Mappings whose `kind` selects a dataclass, and parts of a profile that contradict each other."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from detr_core.config import ConfigError, as_dict, build
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.faster_rcnn.config import FasterRcnnConfig, RegionLossConfig
from detr_core.model.spec import KINDS as ROWS
from detr_core.model.spec import detector_config
from detr_core.train.config import DetectionConfig, SgdConfig
from flows.profile.settings import Profile
from tests.conftest import tiny_parameters
from tests.kinds import DEFORMABLE, FASTER_RCNN, FASTER_RCNN_DC5, RECIPES

KNOWN = ", ".join(map(repr, ROWS))
DILATED = FASTER_RCNN_DC5["detector"]["backbone"]


def profile(kind: str) -> dict[str, Any]:
    content, recipe = tiny_parameters(), RECIPES[kind]
    content["detector"] = recipe["detector"]
    content["train_detection"] |= {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    content["studies"] = {"evaluating": {}, "training": {}}  # the studies there vary a DETR
    return content


def test_the_kind_says_which_configuration_it_is() -> None:
    kinds = ((DEFORMABLE, DeformableConfig), (FASTER_RCNN, FasterRcnnConfig), (FASTER_RCNN_DC5, FasterRcnnConfig))
    for recipe, kind in kinds:
        config = detector_config(recipe["detector"], "a.yaml")
        assert isinstance(config, kind)
        assert detector_config(as_dict(config), "a.yaml") == config


@pytest.mark.parametrize("kind", RECIPES)
def test_a_profile_of_every_kind_is_read(kind: str) -> None:
    assert build(Profile, profile(kind), "a.yaml").detector.kind == RECIPES[kind]["detector"]["kind"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"kind": "deformabel"}, f"a.yaml: kind: expected one of {KNOWN}, found 'deformabel'"),
        ({"kind": None}, f"a.yaml: kind: expected one of {KNOWN}, found None"),
        ({"kind": "detr"}, "a.yaml: stages: unknown key"),
        ({"point": 2}, "a.yaml: point: unknown key; did you mean 'points'?"),
        ({"levels": 1}, "a.yaml: levels: expected the number of stages, 2, to 16, found 1"),
        ({"stages": [4, 2]}, "a.yaml: stages: expected some of 1, 2, 3, 4 in this order, found [4, 2]"),
        ({"levels": 17}, "a.yaml: levels: expected the number of stages, 2, to 16, found 17"),
        ({"points": 10**9}, "a.yaml: points: expected 1 to 1,000, found 1000000000"),
        ({"queries": 10**9}, "a.yaml: queries: expected 1 to 10,000, found 1000000000"),
        ({"width": 48}, "a.yaml: width: expected a multiple of 32 with 4 heads, at most 65,536, found 48"),
        ({"width": 32 * 10**8}, "a.yaml: width: expected a multiple of 32 with 4 heads, at most 65,536, found 3200000000"),
        (
            {"two_stage": True, "refine": False},
            "a.yaml: refine: expected true with two_stage, whose decoder corrects the encoder's",
        ),
        ({"two_stage": True, "levels": 6}, "a.yaml: levels: expected 5 or fewer with two_stage, found 6"),
        ({"two_stage": 1}, "a.yaml: two_stage: expected true or false, found 1"),
        ({"encoded_point": "middle"}, "a.yaml: encoded_point: expected one of 'center', 'end', found 'middle'"),
        ({"backbone": DILATED}, "a.yaml: backbone.dilation: expected false with several levels, which halve in size, found True"),
    ],
)
def test_an_invalid_deformable_detector_is_refused(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(error)):
        detector_config(DEFORMABLE["detector"] | change, "a.yaml")


def test_a_deformable_detector_without_the_newer_keys_keeps_its_meaning() -> None:
    config = detector_config(DEFORMABLE["detector"], "a.yaml")
    assert isinstance(config, DeformableConfig)
    assert (config.two_stage, config.encoded_point) == (False, "end")


def test_a_detector_without_a_kind_is_refused() -> None:
    content = {key: value for key, value in DEFORMABLE["detector"].items() if key != "kind"}
    with pytest.raises(ConfigError, match=rf"a\.yaml: kind: expected one of {KNOWN}, found none"):
        detector_config(content, "a.yaml")
    with pytest.raises(ConfigError, match=r"a\.yaml: expected a mapping with `kind` and the keys of that kind, found 3"):
        detector_config(3, "a.yaml")


@pytest.mark.parametrize(
    ("recipe", "change", "error"),
    [
        (FASTER_RCNN, {"anchors": [16, 32]}, "anchors: expected one size for each of the 3 levels, found [16.0, 32.0]"),
        (FASTER_RCNN, {"backbone": DILATED}, "backbone.dilation: expected false with a pyramid, whose strides double"),
        (FASTER_RCNN, {"width": None}, "stages: expected one stage with width null, which is no pyramid, found [2, 4]"),
        (FASTER_RCNN, {"width": 0}, "width: expected 1 to 65,536, found 0"),
        (FASTER_RCNN, {"candidates": 19}, "candidates: expected 20 or more, so that 60 proposals can be kept, found 19"),
        (FASTER_RCNN_DC5, {"stages": [3, 4]}, "stages: expected one stage with width null, which is no pyramid, found [3, 4]"),
        (FASTER_RCNN_DC5, {"anchors": []}, "anchors: expected different sizes, found []"),
        (FASTER_RCNN_DC5, {"anchors": [32, 32]}, "anchors: expected different sizes, found [32.0, 32.0]"),
        (FASTER_RCNN_DC5, {"anchors": [0, 32]}, "anchors: expected sizes above 0, found [0.0, 32.0]"),
        (FASTER_RCNN_DC5, {"candidates": 39}, "candidates: expected 40 or more, so that 40 proposals can be kept, found 39"),
        (
            FASTER_RCNN_DC5,
            {"training_candidates": None},
            "training_candidates: expected 60 or more, so that 60 proposals can be kept, found 40",
        ),
        (FASTER_RCNN_DC5, {"training_proposals": 0}, "training_proposals: expected 1 to 1,000,000, found 0"),
        (FASTER_RCNN, {"sampled_anchors": 10**9}, "sampled_anchors: expected 2 to 1,000,000, found 1000000000"),
    ],
)
def test_an_invalid_faster_rcnn_is_refused(recipe: dict[str, Any], change: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"a.yaml: {error}")):
        detector_config(recipe["detector"] | change, "a.yaml")


def test_a_faster_rcnn_without_the_newer_keys_keeps_its_meaning() -> None:
    config = detector_config(FASTER_RCNN["detector"], "a.yaml")
    assert isinstance(config, FasterRcnnConfig)
    assert config.kept == config.before_nms == {"training": 60, "testing": 60}
    newer = detector_config(FASTER_RCNN_DC5["detector"], "a.yaml")
    assert isinstance(newer, FasterRcnnConfig)
    assert (newer.kept, newer.before_nms) == ({"training": 60, "testing": 40}, {"training": 120, "testing": 80})
    loss = build(RegionLossConfig, FASTER_RCNN["loss"], "a.yaml")
    assert (loss.proposals_giou, loss.beta) == (0, 1 / 9), "torchvision's losses"


@pytest.mark.parametrize(
    ("kind", "field", "value", "error"),
    [
        (
            "deformable",
            "loss",
            FASTER_RCNN["loss"],
            "loss.kind: expected 'focal' with detector.kind 'deformable', found 'regions'",
        ),
        ("faster_rcnn", "loss", DEFORMABLE["loss"], "loss.kind: expected 'regions' with detector.kind 'faster_rcnn'"),
        (
            "deformable",
            "optimizer",
            FASTER_RCNN["optimizer"],
            "optimizer.sampling_lr: expected a learning rate with detector.kind 'deformable', found None",
        ),
        ("faster_rcnn", "optimizer", DEFORMABLE["optimizer"], "optimizer.sampling_lr: expected null with detector.kind"),
        (
            "deformable",
            "optimizer",
            {
                "kind": "sgd",
                "lr": 0.02,
                "backbone_lr": 0.02,
                "momentum": 0.9,
                "weight_decay": 0,
                "clip_norm": None,
            },
            "optimizer.kind: expected 'adamw' with detector.kind 'deformable', found 'sgd'",
        ),
    ],
)
def test_a_training_that_does_not_fit_the_kind_of_detector_is_refused(kind: str, field: str, value: Any, error: str) -> None:
    content = profile(kind)
    content["train_detection"][field] = value
    with pytest.raises(ConfigError, match=re.escape(f"a.yaml: train_detection.{error}")):
        build(Profile, content, "a.yaml")


def test_a_kind_that_cannot_be_fine_tuned_starts_from_no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROWS, "faster_rcnn", replace(ROWS["faster_rcnn"], capabilities=frozenset()))
    content = profile("faster_rcnn")
    content["train_detection"]["init"] = {"checkpoint": "a.pt", "sha256": None}
    error = "a.yaml: train_detection.init: expected null with detector.kind 'faster_rcnn', found 'a.pt'"
    with pytest.raises(ConfigError, match=re.escape(error)):
        build(Profile, content, "a.yaml")


def test_a_number_with_hundreds_of_digits_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"profile: lr: expected a finite number, found a whole number above 1e308"):
        build(
            SgdConfig,
            {"lr": 10**400, "backbone_lr": 0, "momentum": 0, "weight_decay": 0, "clip_norm": None, "kind": "sgd"},
            "profile",
        )


@pytest.mark.parametrize(("name", "value"), [("epochs", 10**12), ("steps", 10**19), ("checkpoint_every", 0)])
def test_an_absurd_number_of_steps_is_refused(name: str, value: int) -> None:
    content = tiny_parameters()["train_detection"] | {name: value}
    with pytest.raises(ConfigError, match=rf"{name}: expected 1 to 1,000,000,000, found {value}"):
        build(DetectionConfig, content, "profile")
