"""The project's profiles, and the errors that are raised before any work, in particular for variants of studies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from detr_core.config import ConfigError, build
from detr_core.studies.config import EVALUATING
from flows.profile.paths import PARAMS
from flows.profile.settings import Profile, left_out, load, read, variants
from flows.studies.selection import selected
from tests.conftest import tiny_parameters
from tests.kinds import DEFORMABLE, KINDS

PROFILES = sorted(path.stem for path in PARAMS.glob("*.yaml"))


def with_study(**changes: Any) -> Profile:
    study = {"paper": "Table 2", "base": "1", "seeds": [0], "set": {}, "vary": {"detector.encoder_layers": [0, 1]}}
    content = tiny_parameters()
    content["ablations"] = {"depth": {key: value for key, value in (study | changes).items() if value is not None}}
    return build(Profile, content, "tiny.yaml")


def named(**overrides: dict[str, Any]) -> Profile:
    return with_study(vary=None, variants={"base": {}, **overrides}, base="base")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_makes_sense_and_has_the_same_studies(profile: str) -> None:
    settings = load(profile)
    assert list(settings.ablations) == list(load("demo").ablations)


@pytest.mark.parametrize("number", ["1e-05", "1.0e-5", "0.00001", "+1E-5"])
def test_a_number_is_one_however_it_is_written(number: str, tmp_path: Path) -> None:
    file = tmp_path / "smoke.yaml"
    file.write_text((PARAMS / "smoke.yaml").read_text().replace("adamw, lr: 7.0e-4", f"adamw, lr: {number}", 1))
    assert read(file).train_detection.optimizer.lr == 1e-5


def test_the_papers_schedules_are_those_of_the_study_whichever_the_profile_has() -> None:
    content = yaml.safe_load((PARAMS / "coco.yaml").read_text(encoding="utf-8"))
    plain = build(Profile, content, "coco.yaml")
    assert (plain.train_detection.epochs, plain.train_detection.schedule.drop_epoch) == (300, 200)
    assert (plain.train_panoptic.epochs, plain.train_panoptic.schedule.drop_epoch) == (25, 15)
    content["train_detection"] |= {"epochs": 500, "schedule": content["train_detection"]["schedule"] | {"drop_epoch": 400}}
    long = build(Profile, content, "coco.yaml")
    assert long.train_panoptic == plain.train_panoptic
    for profile in (plain, long):
        profiles = variants(profile, "schedule")
        assert {name: (v.train_detection.epochs, v.train_detection.schedule.drop_epoch) for name, v in profiles.items()} == {
            "300 epochs": (300, 200), "500 epochs": (500, 400),
        }  # fmt: skip
        assert {variant.train_detection.targets for variant in profiles.values()} == {"instances"}


def test_a_variant_is_the_whole_profile_with_its_overrides() -> None:
    settings = with_study(set={"train_detection.epochs": 2, "detector.heads": 2})
    profiles = variants(settings, "depth")
    assert {name: variant.detector.encoder_layers for name, variant in profiles.items()} == {"0": 0, "1": 1}
    assert {(variant.train_detection.epochs, variant.detector.heads) for variant in profiles.values()} == {(2, 2)}
    assert settings.train_detection.epochs == 1, "the profile stays as it is"
    assert variants(load("smoke"), "decoder-nms") == {}


def test_a_whole_section_can_be_overridden() -> None:
    loss = {"kind": "softmax", "classification": 2, "l1": 1, "giou": 1, "no_object": 0.5, "auxiliary": False}
    assert variants(named(other={"train_detection.loss": loss}), "depth")["other"].train_detection.loss.no_object == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"vary": {"detector.encoder_layer": [0, 1]}},
            "tiny.yaml: ablations.depth.vary.0: detector.encoder_layer: unknown key; did you mean 'detector.encoder_layers'?",
        ),
        (
            {"set": {"train_detection.epoch": 3}},
            "tiny.yaml: ablations.depth.set: train_detection.epoch: unknown key; did you mean 'train_detection.epochs'?",
        ),
        (
            {"set": {"data.seed": 3}},
            "tiny.yaml: ablations.depth.set: expected keys of detector, train_detection, train_panoptic, evaluate, found",
        ),
        (
            {"set": {"train_detection.seed": 3}},
            "tiny.yaml: ablations.depth.set: expected seeds in the study's `seeds`, found 'train_detection.seed'",
        ),
        (
            {"vary": {"detector.encoder_layers": [1, -1]}},
            "tiny.yaml: ablations.depth.vary.-1",
        ),
        (
            {"vary": {"detector.encoder_layers": [1, "two"]}},
            "tiny.yaml: ablations.depth.vary.two: detector.encoder_layers: expected a whole number, found 'two'",
        ),
        (
            {"vary": {"detector.encoder_layers": [1, 2]}, "set": {"detector.heads": 0}},
            "tiny.yaml: ablations.depth.vary.1: detector.heads: expected at least 1, found 0",
        ),
    ],
)  # fmt: skip
def test_a_variant_that_makes_no_sense_is_refused_with_file_and_key(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        with_study(**changes)
    assert str(raised.value).startswith(said) or "names of letters" in str(raised.value)


def test_two_variants_of_the_same_content_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"tiny\.yaml: ablations\.depth\.variants\.same: expected variants that differ, found 'the"
    ):
        named(same={"detector.heads": 4})


def test_a_study_of_masks_is_for_detr() -> None:
    deformable = {"detector": DEFORMABLE["detector"]}
    deformable |= {f"train_detection.{name}": DEFORMABLE[name] for name in ("loss", "optimizer")}
    assert variants(named(other=deformable), "depth")["other"].detector.kind == "deformable"
    message = r"tiny\.yaml: ablations\.depth\.variants\.other: expected detector\.kind 'detr', which can have a mask head"
    with pytest.raises(ConfigError, match=rf"{message}, found 'deformable'"):
        with_study(vary=None, variants={"base": {}, "other": deformable}, base="base", set={"train_panoptic.epochs": 1})


@pytest.mark.parametrize(("kind", "possible"), [("deformable", ["decoder-nms"]), ("faster_rcnn", [])])
def test_studies_that_a_kind_of_detector_cannot_do_are_left_out_or_refused(kind: str, possible: list[str]) -> None:
    content = tiny_parameters()
    content["detector"] = KINDS[kind]["detector"]
    content["train_detection"] |= {name: KINDS[kind][name] for name in ("loss", "optimizer")}
    content["ablations"] = {name: study for name, study in content["ablations"].items() if name in EVALUATING}
    settings = build(Profile, content, "tiny.yaml")
    assert selected(settings, "tiny", []) == selected(settings, "tiny", ["all"]) == possible
    assert left_out(settings) == [name for name in EVALUATING if name not in possible]
    message = f"study 'scoring': expected a detector of kind 'detr', found \"'{kind}' in profile 'tiny'\""
    with pytest.raises(ConfigError, match=re.escape(message)):
        selected(settings, "tiny", ["scoring"])


def test_studies_are_chosen_by_name_in_the_profiles_order() -> None:
    settings = load("smoke")
    assert selected(settings, "smoke", []) == list(EVALUATING)
    assert selected(settings, "smoke", ["losses", "encoder-depth"]) == ["encoder-depth", "losses"]
    assert selected(settings, "smoke", ["losses", "all"]) == list(settings.ablations)
    with pytest.raises(ConfigError) as raised:
        selected(settings, "smoke", ["losses", "encoder-deph"])
    message = str(raised.value)
    assert message.startswith(
        "study 'encoder-deph': profile 'smoke' has no such study; did you mean 'encoder-depth'? known: decoder-nms, "
    )


def test_a_profile_of_a_detector_without_mask_head_says_null(tmp_path: Path) -> None:
    content = yaml.safe_load((PARAMS / "smoke.yaml").read_text(encoding="utf-8"))
    content["detector"], content["ablations"] = DEFORMABLE["detector"], {}
    content["train_detection"] |= {"loss": DEFORMABLE["loss"], "optimizer": DEFORMABLE["optimizer"]}
    file = tmp_path / "deformable.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"deformable\.yaml: train_panoptic: expected null with detector\.kind 'deformable'"):
        read(file)
    file.write_text(yaml.safe_dump(content | {"train_panoptic": None}))
    assert read(file).train_panoptic is None
