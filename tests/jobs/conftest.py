"""A fixture that generates the scenes on which the training jobs are tested."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from detr_core.reporter import Silent
from detr_core.sources.scenes import generate_scenes
from tests.conftest import tiny_settings


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of generated scenes; some of the training images have no objects."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes = tiny_settings().data.scenes
    assert scenes is not None
    generate_scenes(replace(scenes, train=24, val=2), 0, folder, 1, Silent())
    for kind in ("instances", "panoptic"):
        file = folder / "annotations" / f"{kind}_train.json"
        content = json.loads(file.read_text())
        emptied = {image["id"] for image in content["images"][::5]}
        if kind == "instances":
            content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in emptied]
        else:
            for entry in content["annotations"]:
                entry["segments_info"] = [] if entry["image_id"] in emptied else entry["segments_info"]
        file.write_text(json.dumps(content))
    return folder
