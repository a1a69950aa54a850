"""Pictures of predictions show the ground truth and the detections that are sure enough."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detr_core.data.splits import DatasetError
from detr_core.plots.detections import detection_pictures
from detr_core.plots.panoptic import overlay, panoptic_pictures
from detr_core.plots.pictures import category_colors
from detr_core.sampling import evenly_spaced
from tests.plots.stage_results import Results, dump, split_of


@given(st.integers(0, 500), st.integers(0, 500))
def test_chosen_indices_are_spread_evenly(images: int, count: int) -> None:
    indices = evenly_spaced(images, count)
    assert len(indices) == min(images, count)
    steps = {after - before for before, after in pairwise([*indices, images])}
    assert all(step >= 1 for step in steps)
    assert not steps or max(steps) - min(steps) <= 1


def test_every_class_of_coco_has_a_colour_of_its_own() -> None:
    assert len(set(category_colors(range(133)).values())) == 133


def test_predictions_that_are_the_ground_truth_look_like_it(results: Results, tmp_path: Path) -> None:
    (file,) = detection_pictures(split_of(results), results.evaluation, tmp_path, 1)
    assert file.name == "detection_0.jpg"
    pixels = np.asarray(Image.open(file)).astype(int)
    assert pixels.shape[1] == 2 * 384 + 3 * 4
    truth, prediction = pixels[-388:-4, 4:388], pixels[-388:-4, 392:776]
    # Only the scores are different.
    assert 0 < (np.abs(truth - prediction).max(axis=2) > 60).mean() < 0.05


def test_unsure_and_unknown_detections_are_not_drawn(results: Results, tmp_path: Path) -> None:
    boxes = [{"image_id": 0, "category_id": 1, "bbox": [8, 8, 40, 40], "score": 0.49}]
    boxes += [{"image_id": 0, "category_id": 77, "bbox": [8, 8, 40, 40], "score": 0.9}]
    pictures = []
    for content in (boxes, []):
        dump(results.evaluation / "bbox.json", content)
        pictures.append(detection_pictures(split_of(results), results.evaluation, tmp_path, 1)[0].read_bytes())
    assert pictures[0] == pictures[1]


def test_boxes_of_things_come_from_panoptic_segments_without_instances(results: Results, tmp_path: Path) -> None:
    (expected,) = detection_pictures(split_of(results), results.evaluation, tmp_path, 1)
    pixels = expected.read_bytes()
    (picture,) = detection_pictures(replace(split_of(results), instances=None), results.evaluation, tmp_path, 1)
    assert picture.read_bytes() == pixels


def test_segments_are_tinted_and_void_is_dark() -> None:
    ids = np.zeros((4, 4), dtype=np.int32)
    ids[:, 2:] = 300
    panel = Image.new("RGB", (40, 40), (100, 100, 100))
    picture = overlay(panel, ids, [{"id": 300, "category_id": 5}], {5: ""}, {5: (0, 200, 0)})
    assert picture.getpixel((5, 20)) == (40, 40, 40)
    assert picture.getpixel((30, 35)) == (38, 162, 38)
    assert picture.getpixel((20, 5)) == (255, 255, 255), "an outline"


def test_panoptic_pictures_show_image_truth_and_prediction(results: Results, tmp_path: Path) -> None:
    files = panoptic_pictures(split_of(results), results.evaluation, tmp_path, 12)
    assert [file.name for file in files] == ["panoptic_0.jpg", "panoptic_1.jpg", "panoptic_2.jpg"]
    pixels = np.asarray(Image.open(files[0])).astype(int)
    image, truth, prediction = (pixels[-388:-4, left : left + 384] for left in (4, 392, 780))
    assert np.abs(truth - prediction).mean() < 2
    assert np.abs(truth - image).mean() > 10


def test_no_panoptic_pictures_without_panoptic_ground_truth(results: Results, tmp_path: Path) -> None:
    split = replace(split_of(results), panoptic=None, panoptic_masks=None)
    assert panoptic_pictures(split, results.evaluation, tmp_path, 3) == []


def test_a_file_name_that_leads_out_of_the_folder_is_refused(results: Results, tmp_path: Path) -> None:
    content = json.loads((results.evaluation / "panoptic.json").read_text())
    content["annotations"][0]["file_name"] = "../../secret.png"
    dump(results.evaluation / "panoptic.json", content)
    with pytest.raises(DatasetError, match=r"without '\.\.', found '\.\./\.\./secret\.png'"):
        panoptic_pictures(split_of(results), results.evaluation, tmp_path, 3)
