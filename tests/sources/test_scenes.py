"""Generated scenes depend only on the seed, and their annotations agree with their pixels."""

from __future__ import annotations

import filecmp
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from detr_core.data.splits import read_dataset
from detr_core.reporter import Silent
from detr_core.sources.drawing import STUFF, THINGS, draw_scene
from detr_core.sources.scenes import generate_scenes
from detr_core.sources.shapes import FIGURES, figure_mask
from tests.recording_reporter import RecordingReporter
from tests.tiny_detector import SCENES

CONFIG = replace(SCENES, train=6, val=3, objects=(1, 6), object_size=(14, 34))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of generated scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    generate_scenes(CONFIG, 3, folder, 1, Silent())
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_files_do_not_depend_on_the_number_of_processes(scenes: Path, tmp_path: Path) -> None:
    generate_scenes(replace(CONFIG, train=6, val=3), 3, tmp_path, 2, Silent())
    names = files_below(scenes)
    assert files_below(tmp_path) == names
    assert filecmp.cmpfiles(scenes, tmp_path, names, shallow=False)[0] == names


def test_seeds_and_splits_differ(scenes: Path, tmp_path: Path) -> None:
    generate_scenes(CONFIG, 4, tmp_path, 1, Silent())
    pictures = [(folder / split / "000000000000.jpg").read_bytes() for folder in (scenes, tmp_path) for split in ("train", "val")]
    assert len(set(pictures)) == 4


def test_annotations_agree_with_the_pixels(scenes: Path) -> None:
    for split in read_dataset(scenes).values():
        assert split.panoptic is not None
        assert split.instances is not None
        assert split.panoptic_masks is not None
        panoptic = json.loads(split.panoptic.read_text())
        instances = json.loads(split.instances.read_text())
        names = {category["id"]: category["name"] for category in panoptic["categories"]}
        assert [c["name"] for c in instances["categories"]] == list(THINGS)
        assert len(panoptic["images"]) == len(panoptic["annotations"]) == getattr(CONFIG, split.name)
        for image, annotation in zip(panoptic["images"], panoptic["annotations"], strict=True):
            assert Image.open(split.images / image["file_name"]).size == (64, 64)
            ids = np.asarray(Image.open(split.panoptic_masks / annotation["file_name"]))[..., 0]
            assert set(np.unique(ids)) == {segment["id"] for segment in annotation["segments_info"]}  # nothing is void
            things = [segment for segment in annotation["segments_info"] if names[segment["category_id"]] in THINGS]
            own = [item for item in instances["annotations"] if item["image_id"] == image["id"]]
            assert 1 <= len(things) == len(own) <= 6
            for segment, item in zip(things, own, strict=True):
                mask = ids == segment["id"]
                np.testing.assert_array_equal(rle.decode(item["segmentation"]), mask)
                assert item["bbox"] == segment["bbox"] == rle.toBbox(item["segmentation"]).tolist()
                assert item["area"] == segment["area"] == mask.sum()
                assert item["category_id"] == segment["category_id"]


def test_progress_is_reported(tmp_path: Path) -> None:
    listener = RecordingReporter()
    generate_scenes(CONFIG, 0, tmp_path, 1, listener)
    assert listener.last_progress == (9, 9)


def test_every_thing_keeps_its_visible_part() -> None:
    # Without occlusion allowed, things never touch: all of each is seen, so the box of a circle is full to pi / 4.
    config = replace(CONFIG, visible=1.0, rotation=0, log_aspect=0)
    filled = []
    for seed in range(20):
        scene = draw_scene(config, np.random.default_rng(seed))
        for number, name in enumerate(scene.names):
            mask = scene.segments == number
            if name == "circle":
                rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                filled.append(mask.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1)))
    assert len(filled) > 5
    np.testing.assert_allclose(filled, np.pi / 4, atol=0.05)


def test_classes_have_their_colors() -> None:
    config = replace(CONFIG, color_noise=0, random_color=0, texture=(0, 0))
    scene = draw_scene(config, np.random.default_rng(1))
    for number, name in enumerate(scene.names):
        mask = scene.segments == number
        if mask.sum() > 50:
            tolerance = 35 if name in STUFF else 5  # stuff has a noise of its own
            np.testing.assert_allclose(scene.image[mask].mean(axis=0), {**THINGS, **STUFF}[name], atol=tolerance)


@pytest.mark.parametrize(
    ("figure", "share"),
    # Areas of the figures in their bounding square of side 2: pi, 4, 2, and the pentagram's 1.1226.
    [("circle", np.pi / 4), ("square", 1.0), ("triangle", 0.5), ("star", 1.1226 / 4)],
)
@pytest.mark.parametrize("rotation", [0.0, 0.4])
def test_figures_have_their_areas(figure: str, share: float, rotation: float) -> None:
    mask = figure_mask(figure, 200, (100, 100), (60, 40), rotation)
    assert mask.sum() / (120 * 80) == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("figure", list(FIGURES))
def test_figures_are_cut_off_at_the_edge(figure: str) -> None:
    inside = figure_mask(figure, 40, (20, 20), (15, 15), 0.3)
    moved = figure_mask(figure, 40, (0, 38), (15, 15), 0.3)
    np.testing.assert_array_equal(moved[18:, :20], inside[:22, 20:])
    assert moved.sum() == inside[:22, 20:].sum()
