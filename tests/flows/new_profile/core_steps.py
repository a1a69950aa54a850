"""What `adopt`, the data stage and the check do with a folder, without a profile, for tests with many folders."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from detr_core.check.accounting import accounts
from detr_core.check.inspection import inspect
from detr_core.check.leave_out import write_checked
from detr_core.config import build
from detr_core.data.annotation_cache import write_index
from detr_core.data.splits import read_dataset
from detr_core.evaluate.ground_truth import instances
from detr_core.reporter import Silent
from detr_core.sources.config import FolderConfig
from detr_core.sources.folder import write_folder_dataset
from flows.new_profile import sizes
from flows.new_profile.dataset_contents import read_contents
from flows.new_profile.dataset_layout import find_layout
from flows.new_profile.dataset_notes import finding_notes, require_images
from flows.new_profile.yolo_layout import yolo_set
from flows.profile.paths import PARAMS
from tests.conftest import read_parameters

SMOKE = read_parameters(PARAMS / "smoke.yaml")


def through_the_core(folder: Path, out: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Reads and checks a folder, and writes the dataset to `out`/data and its checked copy to `out`/dataset.

    Returns the section `data.folder` and the account of the entries that the check used and left out.
    """
    layout = find_layout(folder, 0.25)
    config = build(FolderConfig, {"root": str(folder), **layout.section}, str(folder))
    contents = read_contents(config, 0)
    require_images(contents.statistics, contents.findings, folder)
    lines = [*layout.notes, *finding_notes(contents.findings)]
    assert all(line.encode() and "\n" not in line for line in lines), "each note is one line that can be printed"
    parameters = copy.deepcopy(SMOKE)
    sizes.fit(parameters, parameters["studies"], contents.statistics, contents.masks, tuned=False)
    (out / "data").mkdir(parents=True)
    (out / "dataset").mkdir()
    write_folder_dataset(config, folder, 0, yolo_set(folder) if config.format == "yolo" else None, out / "data")
    splits = read_dataset(out / "data")
    inspection = inspect(splits, 10, Silent())
    write_checked(out / "data", inspection.findings, out / "dataset")
    checked = read_dataset(out / "dataset")
    list(write_index(checked))
    instances(checked["val"])
    return layout.section, accounts(splits, inspection.supplied, checked, inspection.findings)
