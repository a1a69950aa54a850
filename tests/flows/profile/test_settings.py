"""The project's profiles, and the errors that are raised before any work, in particular for variants of studies."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from detr_core.config import ConfigError, build
from detr_core.studies.evaluating import EVALUATING
from flows.profile.paths import PARAMS, profile_names
from flows.profile.settings import Profile, load, profile_from, read, unsupported_studies, variants
from flows.studies.selection import selected
from tests.conftest import read_parameters, tiny_parameters, write_parameters
from tests.kinds import DEFORMABLE, RECIPES

PROFILES = profile_names()
EVALUATING_OF_PAPER = ["decoder-nms", "instance-count", "encoder-attention", "decoder-attention", "scoring"]
TRAINING_OF_PAPER = [
    "encoder-depth",
    "positions",
    "losses",
    "feed-forward",
    "schedule",
    "backbones",
    "baselines",
    "panoptic",
    "mask-head",
]


DEPTHS = {"detector.encoder_layers": [0, 1]}


def with_study(**changes: Any) -> Profile:
    study = {"paper": "Table 2", "base": "1", "seeds": [0], "median_of": 1, "set": {}, "vary": DEPTHS}
    content = tiny_parameters()
    depth = {key: value for key, value in (study | changes).items() if value is not None}
    return profile_of(content | {"studies": {"evaluating": {}, "training": {"depth": depth}}})


def profile_of(content: dict[str, Any]) -> Profile:
    """The profile of such a content as `tiny_parameters` returns."""
    plain = {section: value for section, value in content.items() if section != "studies"}
    return profile_from(plain, content["studies"], "tiny.yaml")


def named(**overrides: dict[str, Any]) -> Profile:
    return with_study(vary=None, variants={"base": {}, **overrides}, base="base")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid_and_has_the_papers_studies(profile: str) -> None:
    studies = load(profile).studies
    assert [name for name in studies.evaluating if name in EVALUATING_OF_PAPER] == EVALUATING_OF_PAPER
    assert [name for name in studies.training if name in TRAINING_OF_PAPER] == TRAINING_OF_PAPER


@pytest.mark.parametrize("number", ["1e-05", "1.0e-5", "0.00001", "+1E-5"])
def test_a_number_is_one_however_it_is_written(number: str, tmp_path: Path) -> None:
    file = tmp_path / "smoke.yaml"
    shutil.copy(PARAMS / "smoke.studies.yaml", tmp_path)
    file.write_text((PARAMS / "smoke.yaml").read_text().replace("adamw, lr: 7.0e-4", f"adamw, lr: {number}", 1))
    assert read(file).train_detection.optimizer.lr == 1e-5


def test_the_papers_schedules_are_those_of_the_study_whichever_the_profile_has() -> None:
    content = read_parameters(PARAMS / "coco.yaml")
    plain = build(Profile, content, "coco.yaml")
    assert (plain.train_detection.epochs, plain.train_detection.schedule.drop_epochs) == (300, (200,))
    assert (plain.train_panoptic.epochs, plain.train_panoptic.schedule.drop_epochs) == (25, (15,))
    content["train_detection"] |= {"epochs": 500, "schedule": content["train_detection"]["schedule"] | {"drop_epochs": [400]}}
    long = build(Profile, content, "coco.yaml")
    assert long.train_panoptic == plain.train_panoptic
    for profile in (plain, long):
        profiles = variants(profile, "schedule")
        assert {name: (v.train_detection.epochs, v.train_detection.schedule.drop_epochs) for name, v in profiles.items()} == {
            "300 epochs": (300, (200,)), "500 epochs": (500, (400,)),
        }  # fmt: skip
        assert {variant.train_detection.targets for variant in profiles.values()} == {"instances"}


def test_a_variant_is_the_whole_profile_with_its_overrides() -> None:
    settings = with_study(set={"train_detection.epochs": 2, "detector.heads": 2})
    profiles = variants(settings, "depth")
    assert {name: variant.detector.encoder_layers for name, variant in profiles.items()} == {"0": 0, "1": 1}
    assert {(variant.train_detection.epochs, variant.detector.heads) for variant in profiles.values()} == {(2, 2)}
    assert settings.train_detection.epochs == 1, "the profile stays as it is"


def test_a_whole_section_can_be_overridden() -> None:
    loss = {"kind": "softmax", "classification": 2, "l1": 1, "giou": 1, "no_object": 0.5, "auxiliary": False}
    assert variants(named(other={"train_detection.loss": loss}), "depth")["other"].train_detection.loss.no_object == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vary": {"detector.encoder_layer": [0, 1]}},
            "tiny.studies.yaml: training.depth.vary.0: detector.encoder_layer: unknown key; did you mean "
            "'detector.encoder_layers'?",
        ),
        (
            {"set": {"train_detection.epoch": 3}},
            "tiny.studies.yaml: training.depth.set: train_detection.epoch: unknown key; did you mean 'train_detection.epochs'?",
        ),
        (
            {"set": {"data.seed": 3}},
            "tiny.studies.yaml: training.depth.set: expected keys of detector, train_detection, train_panoptic, evaluate, found",
        ),
        (
            {"set": {"train_detection.seed": 3}},
            "tiny.studies.yaml: training.depth.set: expected seeds in the study's `seeds`, found 'train_detection.seed'",
        ),
        (
            {"vary": {"detector.encoder_layers": [1, -1]}},
            "tiny.studies.yaml: training.depth.vary.-1",
        ),
        (
            {"vary": {"detector.encoder_layers": [1, "two"]}},
            "tiny.studies.yaml: training.depth.vary.two: detector.encoder_layers: expected a whole number, found 'two'",
        ),
        (
            {"vary": {"detector.encoder_layers": [1, 2]}, "set": {"detector.heads": 0}},
            "tiny.studies.yaml: training.depth.vary.1: detector.heads: expected at least 1, found 0",
        ),
    ],
)  # fmt: skip
def test_an_invalid_variant_is_refused_with_file_and_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        with_study(**changes)
    assert str(raised.value).startswith(message) or "names of letters" in str(raised.value)


def test_two_variants_of_the_same_content_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"tiny\.studies\.yaml: training\.depth\.variants\.same: expected variants that differ, found 'the"
    ):
        named(same={"detector.heads": 4})


def test_a_study_of_masks_is_for_detr() -> None:
    deformable = {"detector": DEFORMABLE["detector"]}
    deformable |= {f"train_detection.{name}": DEFORMABLE[name] for name in ("loss", "optimizer")}
    assert variants(named(other=deformable), "depth")["other"].detector.kind == "deformable"
    message = r"tiny\.studies\.yaml: training\.depth\.variants\.other: expected detector\.kind 'detr', which can have a mask head"
    with pytest.raises(ConfigError, match=rf"{message}, or 'mask_rcnn' or .*, which learn masks, found 'deformable'"):
        with_study(vary=None, variants={"base": {}, "other": deformable}, base="base", set={"train_panoptic.epochs": 1})


@pytest.mark.parametrize(("kind", "possible"), [("deformable", ["decoder-nms"]), ("faster_rcnn", [])])
def test_studies_that_a_kind_of_detector_cannot_do_are_left_out_or_refused(kind: str, possible: list[str]) -> None:
    content = tiny_parameters()
    content["detector"] = RECIPES[kind]["detector"]
    content["train_detection"] |= {name: RECIPES[kind][name] for name in ("loss", "optimizer")}
    evaluating = content["studies"]["evaluating"]
    content["studies"] = {"evaluating": {name: evaluating[name] for name in EVALUATING_OF_PAPER}, "training": {}}
    settings = build(Profile, content, "tiny.yaml")
    assert selected(settings, "tiny", []) == selected(settings, "tiny", ["all"]) == possible
    assert unsupported_studies(settings) == [name for name in settings.studies.evaluating if name not in possible]
    message = f"study 'scoring': expected a detector of kind 'detr', found \"'{kind}' in profile 'tiny'\""
    with pytest.raises(ConfigError, match=re.escape(message)):
        selected(settings, "tiny", ["scoring"])


def test_studies_are_chosen_by_name_in_the_profiles_order() -> None:
    settings = load("smoke")
    assert selected(settings, "smoke", []) == list(settings.studies.evaluating)
    assert selected(settings, "smoke", ["losses", "encoder-depth"]) == ["encoder-depth", "losses"]
    assert selected(settings, "smoke", ["losses", "all"]) == list(settings.studies.all)
    with pytest.raises(ConfigError) as raised:
        selected(settings, "smoke", ["losses", "encoder-deph"])
    message = str(raised.value)
    assert message.startswith(
        "study 'encoder-deph': profile 'smoke' has no such study; did you mean 'encoder-depth'? known: decoder-nms, "
    )


def test_a_profile_of_a_detector_without_mask_head_says_null(tmp_path: Path) -> None:
    content = read_parameters(PARAMS / "smoke.yaml")
    content["detector"], content["studies"] = DEFORMABLE["detector"], {"evaluating": {}, "training": {}}
    content["train_detection"] |= {"loss": DEFORMABLE["loss"], "optimizer": DEFORMABLE["optimizer"]}
    file = tmp_path / "deformable.yaml"
    write_parameters(file, content)
    with pytest.raises(ConfigError, match=r"deformable\.yaml: train_panoptic: expected null with detector\.kind 'deformable'"):
        read(file)
    write_parameters(file, content | {"train_panoptic": None})
    assert read(file).train_panoptic is None


@pytest.mark.parametrize("kind", ["mask_rcnn", "panoptic_fpn"])
def test_a_detector_that_learns_masks_by_itself_has_no_mask_head(kind: str, tmp_path: Path) -> None:
    content, recipe = read_parameters(PARAMS / "smoke.yaml"), RECIPES[kind]
    content["detector"], content["studies"] = recipe["detector"], {"evaluating": {}, "training": {}}
    content["train_detection"] |= {"loss": recipe["loss"], "optimizer": recipe["optimizer"]}
    file = tmp_path / "masks.yaml"
    write_parameters(file, content)
    with pytest.raises(
        ConfigError, match=f"train_panoptic: expected null with detector.kind '{kind}', which learns masks by itself"
    ):
        read(file)
    write_parameters(file, content | {"train_panoptic": None})
    assert read(file).masks == {"mask_rcnn": "instances", "panoptic_fpn": "panoptic"}[kind]


def test_panoptic_fpn_needs_panoptic_targets() -> None:
    content, recipe = tiny_parameters(), RECIPES["panoptic_fpn"]
    content["detector"], content["train_panoptic"] = recipe["detector"], None
    content["train_detection"] |= {"loss": recipe["loss"], "optimizer": recipe["optimizer"], "targets": "instances"}
    content["studies"] = {"evaluating": {}, "training": {}}
    expected = (
        "train_detection.targets: expected 'panoptic' (things and stuff) with detector.kind 'panoptic_fpn', found 'instances'"
    )
    with pytest.raises(ConfigError, match=re.escape(expected)):
        build(Profile, content, "tiny.yaml")


def test_studies_are_in_a_file_of_their_own(tmp_path: Path) -> None:
    file, content = tmp_path / "mine.yaml", tiny_parameters()
    write_parameters(file, content)
    assert list(read(file).studies.all) == list(load("smoke").studies.all)
    (tmp_path / "mine.studies.yaml").unlink()
    with pytest.raises(ConfigError, match=r"mine\.studies\.yaml: expected the profile's studies, found no such file or an empty"):
        read(file)
    for section in ("ablations", "studies"):
        file.write_text((PARAMS / "smoke.yaml").read_text() + f"\n{section}: {{}}\n")
        with pytest.raises(ConfigError, match=rf"mine\.yaml: {section}: expected the studies in .*mine\.studies\.yaml, in its"):
            read(file)


@pytest.mark.parametrize(
    ("section", "study", "message"),
    [
        ("evaluating", "scorin", "tiny.studies.yaml: evaluating.scorin: unknown study; did you mean 'scoring'?"),
        ("evaluating", "losses", "tiny.studies.yaml: evaluating.losses: unknown study; known studies: "),
        ("evaluating", "scoring", "tiny.studies.yaml: evaluating.scoring.paper: missing; expected text"),
        ("training", "scoring", "tiny.studies.yaml: training: expected names other than those of evaluating studies"),
    ],
)
def test_an_unknown_study_is_refused_with_file_and_key(section: str, study: str, message: str) -> None:
    depth = {"paper": "Table 2", "base": "1", "seeds": [0], "median_of": 1, "set": {}, "vary": DEPTHS}
    studies: dict[str, Any] = {"evaluating": {}, "training": {}}
    studies[section] = {study: depth if section == "training" else {}}
    with pytest.raises(ConfigError, match=re.escape(message)):
        profile_of(tiny_parameters() | {"studies": studies})


def test_every_evaluating_study_is_one_of_a_profile() -> None:
    assert {name for profile in PROFILES for name in load(profile).studies.evaluating} == set(EVALUATING)


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("data.scenes", "train", 10**9, "1 to 10,000,000"),
        ("data.scenes", "size", 10**6, "32 to 4,096"),
        ("detector", "queries", 10**9, "1 to 10,000"),
        ("detector", "decoder_layers", 10**6, "1 to 1,000"),
        ("train_detection", "batch_size", 10**9, "1 to 65,536"),
        ("evaluate", "batch_size", 10**9, "1 to 65,536"),
        ("resources", "workers", 10**6, "'auto' or 0 to 1,024"),
        ("resources", "processes", 10**6, "'auto' or 1 to 1,024"),
    ],
)
def test_a_number_that_would_fill_the_memory_is_refused(section: str, key: str, value: int, expected: str) -> None:
    content = tiny_parameters()
    part = content
    for name in section.split("."):
        part = part[name]
    part[key] = value
    with pytest.raises(ConfigError, match=re.escape(f"tiny.yaml: {section}.{key}: expected {expected}, found {value}")):
        build(Profile, content, "tiny.yaml")
