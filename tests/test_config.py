"""Mappings whose `kind` selects a dataclass, and parts of a profile that contradict each other."""

from __future__ import annotations

import re
from typing import Any

import pytest

from detr_core.config import ConfigError, as_dict, build
from detr_core.model.deformable.config import DeformableConfig
from detr_core.model.faster_rcnn.config import FasterRcnnConfig
from detr_core.model.spec import KINDS as ROWS
from detr_core.model.spec import detector_config
from flows.profile.settings import Profile
from tests.conftest import tiny_parameters
from tests.kinds import DEFORMABLE, FASTER_RCNN, KINDS

KNOWN = ", ".join(map(repr, ROWS))


def profile(kind: str) -> dict[str, Any]:
    content, recipe = tiny_parameters(), KINDS[kind]
    content["detector"] = recipe["detector"]
    content["train_detection"] |= {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    content["studies"] = {"evaluating": {}, "training": {}}  # the studies there vary a DETR
    return content


def test_the_kind_says_which_configuration_it_is() -> None:
    for recipe, kind in ((DEFORMABLE, DeformableConfig), (FASTER_RCNN, FasterRcnnConfig)):
        config = detector_config(recipe["detector"], "a.yaml")
        assert isinstance(config, kind)
        assert detector_config(as_dict(config), "a.yaml") == config


@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_of_every_kind(kind: str) -> None:
    assert build(Profile, profile(kind), "a.yaml").detector.kind == kind


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"kind": "deformabel"}, f"a.yaml: kind: expected one of {KNOWN}, found 'deformabel'"),
        ({"kind": None}, f"a.yaml: kind: expected one of {KNOWN}, found None"),
        ({"kind": "detr"}, "a.yaml: stages: unknown key"),
        ({"point": 2}, "a.yaml: point: unknown key; did you mean 'points'?"),
        ({"levels": 1}, "a.yaml: levels: expected at least the number of stages, 2, found 1"),
        ({"stages": [4, 2]}, "a.yaml: stages: expected some of 1, 2, 3, 4 in this order, found [4, 2]"),
        ({"width": 48}, "a.yaml: width: expected a multiple of 32 with 4 heads, found 48"),
    ],
)
def test_a_deformable_detector_that_makes_no_sense(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(error)):
        detector_config(DEFORMABLE["detector"] | change, "a.yaml")


def test_without_a_kind() -> None:
    content = {key: value for key, value in DEFORMABLE["detector"].items() if key != "kind"}
    with pytest.raises(ConfigError, match=rf"a\.yaml: kind: expected one of {KNOWN}, found none"):
        detector_config(content, "a.yaml")
    with pytest.raises(ConfigError, match=r"a\.yaml: expected a mapping with `kind` and the keys of that kind, found 3"):
        detector_config(3, "a.yaml")


def test_a_size_for_every_level_of_the_pyramid() -> None:
    with pytest.raises(ConfigError, match=re.escape("anchors: expected one size for each of the 3 levels, found [16.0, 32.0]")):
        detector_config(FASTER_RCNN["detector"] | {"anchors": [16, 32]}, "a.yaml")


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
            {"kind": "sgd", "lr": 0.02, "backbone_lr": 0.02, "momentum": 0.9, "weight_decay": 0, "clip_norm": None},
            "optimizer.kind: expected 'adamw' with detector.kind 'deformable', found 'sgd'",
        ),
        (
            "deformable",
            "init",
            {"checkpoint": "a.pt", "sha256": None},
            "init: expected null with detector.kind 'deformable', found 'a.pt'",
        ),
    ],
)
def test_what_does_not_go_with_a_kind_of_detector(kind: str, field: str, value: Any, error: str) -> None:
    content = profile(kind)
    content["train_detection"][field] = value
    with pytest.raises(ConfigError, match=re.escape(f"a.yaml: train_detection.{error}")):
        build(Profile, content, "a.yaml")
