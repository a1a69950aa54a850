"""A profile of one's own panoptic data can have a detector that predicts panoptic maps by itself."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from detr_core.config import ConfigError
from flows.new_profile.summary import summary_table
from flows.profile import settings
from flows.profile.settings import load
from tests.check.datasets import write_whole
from tests.flows.new_profile.test_adopt import NAME, adopt


@pytest.mark.parametrize("detector", ["panoptic-fpn", "upsnet", "upsnet-m"])
def test_a_detector_that_predicts_panoptic_maps_by_itself_gets_its_recipe(tmp_path: Path, params: Path, detector: str) -> None:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    adopted = adopt(root, like="demo", detector=detector)
    shown = io.StringIO()
    Console(file=shown, width=100).print(summary_table(adopted.paths.profile, adopted.content, adopted.statistics, adopted.deep))
    assert "trained on the panoptic annotations" in shown.getvalue()
    profile, recipe = load(NAME), settings.variants(load("demo"), "panoptic")[detector]
    assert profile.detector == recipe.detector
    assert profile.train_detection.loss == recipe.train_detection.loss
    assert profile.evaluate.panoptic_fpn == recipe.evaluate.panoptic_fpn
    assert profile.evaluate.upsnet == recipe.evaluate.upsnet
    assert profile.evaluate.multi_scale == recipe.evaluate.multi_scale
    assert profile.train_detection.epochs > recipe.train_detection.epochs, "they follow from the number of images"


def panoptic_folder(tmp_path: Path) -> Path:
    root = write_whole(tmp_path / "data")
    (root / "dataset.json").unlink()
    return root


def require_refused(root: Path, found: str) -> None:
    expected = f"--detector: expected panoptic annotations of things and stuff in {root} for the kind 'panoptic_fpn'"
    with pytest.raises(ConfigError, match=re.escape(expected) + f".*, found {found}; choose another detector"):
        adopt(root, like="demo", detector="panoptic-fpn")


def test_such_a_detector_is_refused_without_panoptic_annotations(tmp_path: Path, params: Path) -> None:
    root = panoptic_folder(tmp_path)
    for file in root.glob("panoptic_*.json"):
        file.unlink()
    require_refused(root, "masks of instances only")


def test_such_a_detector_is_refused_without_stuff(tmp_path: Path, params: Path) -> None:
    root = panoptic_folder(tmp_path)
    for file in root.glob("panoptic_*.json"):
        content = json.loads(file.read_text())
        content["categories"] = [category | {"isthing": 1} for category in content["categories"]]
        file.write_text(json.dumps(content))
    require_refused(root, "things only or stuff only")


def test_a_missing_png_is_reported_although_the_images_have_the_names_of_the_pngs(tmp_path: Path, params: Path) -> None:
    root = panoptic_folder(tmp_path)
    pngs = sorted((root / "panoptic_train").glob("*.png"))
    for png in pngs:  # the images are PNGs of the same names
        for image in (root / "train").glob(f"{png.stem}.*"):
            image.rename(image.with_suffix(".png"))
    for name in ("panoptic_train.json", "instances_train.json"):
        file = root / name
        content = json.loads(file.read_text())
        for image in content["images"]:
            image["file_name"] = f"{Path(image['file_name']).stem}.png"
        file.write_text(json.dumps(content))
    pngs[0].unlink()
    adopted = adopt(root, like="demo")
    assert adopted.content["data"]["folder"]["train"]["panoptic_masks"] == "panoptic_train"
