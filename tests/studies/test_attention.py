"""The attention studies: the attention in regions, and the stored maps of selected images."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detr_core.config import ConfigError, build
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import Split
from detr_core.sampling import evenly_spaced
from detr_core.structures import Target
from detr_core.studies.claims import SeedDifference
from detr_core.studies.evaluating.decoder_attention import DecoderAttentionConfig
from detr_core.studies.measurements.attention_mass import (
    Mass,
    box_masks,
    box_regions,
    compared,
    mask_regions,
    position_of,
)
from detr_core.studies.measurements.decoder_attention import decoder_attention, write_decoder_attention
from detr_core.studies.measurements.encoder_attention import encoder_attention, write_encoder_attention
from tests.recording_reporter import RecordingReporter
from tests.tiny_detector import dataset_of, detector, study_inputs

DECODER: dict[str, Any] = {"paper": "Figure 6", "pictures": 2, "score": 0.1, "border": 0.1, "batch_size": 4, "resize": None}


@pytest.fixture(scope="module")
def dataset(split: Split) -> CocoDataset:
    """Returns the generated scenes with their masks."""
    return dataset_of(split, masks=True)


@pytest.mark.parametrize("changed", [{"border": 0.5}, {"border": 0}, {"score": 1.1}, {"pictures": 0}])
def test_an_invalid_study_is_refused(changed: dict[str, Any]) -> None:
    (field,) = changed
    with pytest.raises(ConfigError, match=f"{field}: expected"):
        build(DecoderAttentionConfig, DECODER | changed, "a.yaml")


@given(st.data())
def test_regions_of_boxes_equal_a_count_of_fine_pixels(data: st.DataObject) -> None:
    corners = [sorted(data.draw(st.integers(-8, 32)) for _ in range(2)) for _ in "xy"]
    (x1, x2), (y1, y2) = corners
    box = torch.tensor([[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]]) / 24
    fine = torch.zeros(1, 24, 24, dtype=torch.bool)
    fine[0, max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = True
    torch.testing.assert_close(box_regions(box, (4, 6)), mask_regions(fine, (4, 6)), atol=1e-5, rtol=0)


def test_points_are_in_their_positions() -> None:
    points = torch.tensor([[0.0, 0.0], [0.99, 0.0], [0.5, 0.51], [1.0, 1.0]])
    assert position_of(points, (2, 4)).tolist() == [0, 3, 4 + 2, 7]


def test_mass_of_uniform_attention_is_chance() -> None:
    regions = torch.zeros(2, 2, 4)
    regions[0, 0] = 1
    regions[1, 1, :1] = 1
    mass = Mass()
    mass.add(torch.full((2, 2, 4), 1 / 8), regions)
    assert mass.metrics("own", 2) == {"own/mass": 0.3125, "own/area": 0.3125, "own/times": 1.0}
    mass.add(torch.eye(1, 8).view(1, 2, 4), regions[:1])  # all of it at the first position
    assert mass.metrics("own", 3)["own/mass"] == pytest.approx((0.5 + 0.125 + 1) / 3)
    assert Mass().metrics("own", 0) == {}


def test_the_interval_of_two_regions_is_over_the_images() -> None:
    """One region has the same attention in both images; the other has twice its share in one of them, and none in the other."""
    even, uneven, regions = Mass(), Mass(), torch.tensor([[[1.0, 0.0]]])
    for share in (1.0, 0.0):
        even.add(torch.full((1, 1, 2), 0.5), regions)
        uneven.add(torch.tensor([[[share, 1 - share]]]), regions)
    comparison = compared("uneven against even", ("even", "uneven"), even, uneven)
    assert comparison.difference == SeedDifference(1.0, 1.0, -1.0, 1.0)
    assert (comparison.names, comparison.units) == (("even", "uneven"), 2)
    assert compared("", ("a", "b"), even, even).difference == SeedDifference(1.0, 1.0, 0.0, 0.0)


def test_one_image_gives_no_interval() -> None:
    mass = Mass()
    mass.add(torch.full((3, 1, 2), 0.5), torch.tensor([[[1.0, 0.0]]]).expand(3, 1, 2))
    comparison = compared("", ("a", "b"), mass, mass)
    assert (comparison.difference, comparison.units) == (SeedDifference(1.0, 1.0, None, None), 1)


@pytest.mark.parametrize(("images", "count", "expected"), [(6, 2, [0, 3]), (3, 5, [0, 1, 2]), (5, 3, [0, 1, 3])])
def test_pictures_are_evenly_spread(images: int, count: int, expected: list[int]) -> None:
    assert evenly_spaced(images, count) == expected


def test_uniform_encoder_attention_has_the_mass_of_chance(dataset: CocoDataset, split: Split, tmp_path: Path) -> None:
    model = detector(dataset.categories, mask_head=False)
    with torch.no_grad():  # without queries and keys attention is the same everywhere
        model.transformer.encoder.layers[-1].self_attn.in_proj_weight[: 2 * 32] = 0
    reporter = RecordingReporter()
    result = encoder_attention(study_inputs(model, split, reporter), dataset, pictures=2, points=2, batch_size=4)
    assert reporter.last_progress == (6, 6)
    categories = [[dataset.categories[label] for label in dataset[i].target.labels] for i in range(6)]
    things = [[category.name for category in image_categories if category.isthing] for image_categories in categories]
    assert result.metrics["things"] == sum(map(len, things))
    for region in ("own", "same_class", "others"):
        assert result.metrics[f"{region}/times"] == pytest.approx(1, abs=1e-4)
    own = [dataset[i].target for i in range(6)]
    areas = [
        float(mask.float().mean())
        for target in own
        if target.masks is not None
        for mask, label in zip(target.masks, target.labels, strict=True)
        if dataset.categories[label].isthing
    ]
    assert result.metrics["own/area"] == pytest.approx(float(np.mean(areas)), rel=0.05)
    assert list(result.pictures) == [0, 3]
    write_encoder_attention(result, dataset, tmp_path)
    content = json.loads((tmp_path / "maps.json").read_text())
    for index, picture in zip((0, 3), content, strict=True):
        assert picture["image_id"] == dataset.image_ids[index]
        assert np.array_equal(np.asarray(Image.open(tmp_path / picture["file"])), dataset[index].image.permute(1, 2, 0).numpy())
        assert len(picture["points"]) == min(2, len(things[index]))
        for point in picture["points"]:
            assert point["category"] in things[index]
            assert np.sum(point["map"]) == pytest.approx(1, abs=1e-3)
    assert json.loads((tmp_path / "metrics.json").read_text()) == result.metrics
    rows = list(csv.DictReader((tmp_path / "regions.csv").open()))
    assert [row["region"] for row in rows] == ["own", "same_class", "others"]


def test_an_encoder_without_layers_has_no_attention(dataset: CocoDataset, split: Split) -> None:
    model = detector(dataset.categories, mask_head=False)
    model.transformer.encoder.layers = torch.nn.ModuleList()
    with pytest.raises(ConfigError, match=r"detector\.encoder_layers: expected 1 or more for encoder-attention, found 0"):
        encoder_attention(study_inputs(model, split, RecordingReporter()), dataset, pictures=2, points=2, batch_size=4)


def test_uniform_decoder_attention_has_the_mass_of_chance(dataset: CocoDataset, split: Split, tmp_path: Path) -> None:
    model = detector(dataset.categories, mask_head=False)
    with torch.no_grad():
        model.transformer.decoder.layers[-1].multihead_attn.in_proj_weight[: 2 * 32] = 0
    inputs = study_inputs(model, split, RecordingReporter())
    result = decoder_attention(inputs, dataset, pictures=2, score=0.1, border=0.1, batch_size=4)
    shares = [result.metrics[f"{region}/mass"] for region in ("extremities", "interior", "outside")]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert result.metrics["extremities/times"] == pytest.approx(1, abs=1e-4)
    assert result.metrics["detections"] > 0
    assert 0 < result.metrics["queries/center"] <= 1
    assert result.boxes.shape == (6, 12, 4)
    write_decoder_attention(result, dataset, tmp_path)
    content = json.loads((tmp_path / "maps.json").read_text())
    assert [picture["image_id"] for picture in content] == [dataset.image_ids[0], dataset.image_ids[3]]
    boxes = np.load(tmp_path / "boxes.npy")
    things = {category.name for category in dataset.categories if category.isthing}
    for index, picture in zip((0, 3), content, strict=True):
        scores = [entry["score"] for entry in picture["objects"]]
        assert scores == sorted(scores, reverse=True)
        for entry in picture["objects"]:
            assert entry["score"] >= 0.1
            assert entry["category"] in things
            assert boxes[index, entry["query"]].tolist() == pytest.approx(entry["box"])
    none = decoder_attention(inputs, dataset, pictures=2, score=1.0, border=0.1, batch_size=4)
    assert none.metrics["detections"] == 0
    assert "extremities/mass" not in none.metrics


def test_without_masks_an_object_is_its_box() -> None:
    target = Target(1, torch.tensor([0, 0]), torch.tensor([[0.5, 0.5, 0.5, 1.0], [0.875, 0.25, 0.25, 0.5]]), None, (2, 4), (2, 4))
    assert box_masks(target).int().tolist() == [[[0, 1, 1, 0], [0, 1, 1, 0]], [[0, 0, 0, 1], [0, 0, 0, 0]]]
