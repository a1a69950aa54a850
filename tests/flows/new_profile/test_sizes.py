"""Image sizes, numbers of epochs and of queries follow from the statistics of a dataset."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest

from detr_core.check.statistics import Statistics
from detr_core.studies.measurements.instance_count_config import InstanceCountConfig
from flows.new_profile import sizes
from flows.profile.paths import PARAMS
from flows.profile.settings import read
from tests.conftest import read_parameters, write_parameters


def statistics(images: int, size: tuple[int, int], side: int, most: int) -> Statistics:
    return Statistics({"cat": images}, Counter({most: images}), Counter({side: images}), Counter({size: images}))


def test_queries_leave_room_above_the_most_objects() -> None:
    for most, expected in ((0, 10), (6, 10), (7, 20), (30, 50), (63, 100)):
        assert sizes.queries({"train": statistics(9, (10, 10), 5, 1), "val": statistics(9, (10, 10), 5, most)}) == expected


@pytest.mark.parametrize(
    ("like", "images", "detr", "others"),
    [
        ("demo", 205, 585, 97),
        ("demo", 100_000, 12, 12),
        ("demo", 10, 600, 100),
        ("coco", 118_287, 150, 25),
        ("coco", 3000, 333, 55),
    ],
)
def test_detr_has_the_longest_training(like: str, images: int, detr: int, others: int) -> None:
    whole = {name: statistics(images, (480, 640), 100, 5) for name in ("train", "val")}
    recipe = read_parameters(PARAMS / f"{like}.yaml")
    variants = recipe["studies"]["training"]["baselines"]["variants"]
    for detector, epochs in (
        (recipe["detector"], detr),
        *((variants[name]["detector"], others) for name in ("deformable", "faster-rcnn")),
    ):
        content = copy.deepcopy(recipe) | {"detector": detector}
        sizes.fit(content, content["studies"], whole, masks=None, tuned=False)
        assert content["train_detection"]["epochs"] == epochs


@pytest.mark.parametrize("like", ["demo", "coco"])
@pytest.mark.parametrize("images", [1, 7, 205, 5000, 118_000])
@pytest.mark.parametrize("size", [(20, 20), (480, 640), (3000, 500), (4000, 6000)])
@pytest.mark.parametrize("side", [1, 30, 2000])
@pytest.mark.parametrize("tuned", [False, True])
def test_sizes_are_valid_for_any_data(
    tmp_path: Path, like: str, images: int, size: tuple[int, int], side: int, tuned: bool
) -> None:
    content = read_parameters(PARAMS / f"{like}.yaml")
    whole = {name: statistics(images, size, side, 5) for name in ("train", "val")}
    masks: tuple[Literal["panoptic", "instances"] | None, ...] = ("panoptic", "instances", None)
    sizes.fit(content, content["studies"], whole, masks[images % 3], tuned)
    content["studies"]["training"] = {}  # as adopt does
    file = tmp_path / "x.yaml"
    write_parameters(file, content)
    profile = read(file)  # refuses what makes no sense
    resize = profile.evaluate.resize
    assert resize is not None
    assert profile.train_detection.resize == resize == profile.studies.evaluating["decoder-nms"].resize
    assert resize.longest <= (256 if like == "demo" else 1333)
    study = profile.studies.evaluating["instance-count"]
    assert isinstance(study, InstanceCountConfig)
    assert study.grid**2 <= profile.detector.queries  # type: ignore[union-attr]
    assert study.canvas <= resize.longest
    if like == "coco" and (tuned or size == (480, 640)):
        assert (resize.short, resize.longest) == ((800,), 1333), "the published sizes"
        crop = profile.train_detection.augmentation.crop
        assert crop is not None
        assert (crop.before, crop.smallest, crop.largest) == ((400, 500, 600), 384, 600)


@pytest.mark.parametrize(("images", "batch", "rate"), [(24, 3, 0.0037), (5000, 8, 0.01)])
def test_rates_of_sgd_follow_the_batch_size(images: int, batch: int, rate: float) -> None:
    whole = {name: statistics(images, (480, 640), 100, 5) for name in ("train", "val")}
    content = read_parameters(PARAMS / "coco.yaml")
    variant = content["studies"]["training"]["baselines"]["variants"]["faster-rcnn"]
    content["detector"] = variant["detector"]
    content["train_detection"]["batch_size"] = variant["train_detection.batch_size"]
    content["train_detection"]["optimizer"] = copy.deepcopy(variant["train_detection.optimizer"])
    sizes.fit(content, content["studies"], whole, masks=None, tuned=True)
    assert content["train_detection"]["batch_size"] == batch
    assert content["train_detection"]["optimizer"]["lr"] == content["train_detection"]["optimizer"]["backbone_lr"] == rate
