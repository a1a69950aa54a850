"""The data check finds every fault of an annotation file at which a training would stop."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detr_core.check.inspection import inspect
from detr_core.check.leave_out import write_checked
from detr_core.data.annotations import Targets
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import SplitConfig
from detr_core.data.splits import DatasetError, read_dataset, write_dataset
from detr_core.reporter import Silent
from tests.corruptions import CASES, FIELDS, PANOPTIC_CASES, PANOPTIC_FIELDS, sound, sound_panoptic

# Every other one, which are 300: the other half differs in the value alone.
ALL = [("instances", case) for case in CASES[::2]] + [("panoptic", case) for case in PANOPTIC_CASES[::2]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the images and panoptic PNGs of a dataset, but without annotation files."""
    root = tmp_path_factory.mktemp("corrupted")
    segments = np.zeros((12, 16, 3), np.uint8)
    segments[:4, :5] = (44, 1, 0)
    for name in ("images", "segments"):
        (root / name).mkdir()
    for number in (1, 2):
        Image.fromarray(np.full((12, 16, 3), number * 40, np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(segments).save(root / "segments" / f"{number}.png")
    return root


def readable(folder: Path, targets: Targets) -> bool:
    """Returns whether training can read the whole dataset in this folder."""
    try:
        dataset = CocoDataset(read_dataset(folder)["train"], targets, targets == "panoptic", None, 0)
        return all(dataset[index].image.shape == (3, 12, 16) for index in range(len(dataset)))
    except DatasetError:
        return False


@pytest.mark.parametrize(
    ("targets", "section"),
    [("instances", section) for section in FIELDS] + [("panoptic", section) for section in PANOPTIC_FIELDS],
)
def test_damage_that_stops_a_training_is_found_and_the_rest_can_be_read(folder: Path, targets: Targets, section: str) -> None:
    panoptic = targets == "panoptic"
    split = SplitConfig(
        "images", None if panoptic else "a.json", "a.json" if panoptic else None, "segments" if panoptic else None
    )
    (folder / "a.json").touch()
    write_dataset(folder, folder, split, split)
    splits, refused = read_dataset(folder), 0
    for _, field, value in [case for kind, case in ALL if kind == targets and case[0] == section]:
        content: dict[str, Any] = sound_panoptic() if panoptic else sound()
        entry = content["annotations" if section == "segments" else section][0]
        (entry["segments_info"][0] if section == "segments" else entry)[field] = value
        (folder / "a.json").write_text(json.dumps(content))
        with TemporaryDirectory() as temporary:
            try:
                findings = inspect(splits, 100, Silent()).findings
            except DatasetError:  # of categories: nothing can be left out that would help
                assert section == "categories"
                refused += 1
                continue
            broken = [finding for finding in findings if finding.leaves is not None]
            assert broken or readable(folder, targets), (field, value)
            if broken:
                refused += 1
                write_checked(folder, findings, Path(temporary))
                assert readable(Path(temporary), targets), (field, value)
    assert refused > 15
