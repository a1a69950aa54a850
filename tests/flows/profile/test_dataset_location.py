"""A dataset's folder must not overlap with results."""

from __future__ import annotations

from pathlib import Path

import pytest

from detr_core.config import ConfigError, build
from detr_core.reporter import Silent
from flows import data
from flows.new_profile import adoption
from flows.profile import dataset_location, settings
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from tests.check.datasets import write_whole
from tests.conftest import tiny_parameters, write_parameters


@pytest.mark.parametrize(
    ("dataset", "relation"),
    [
        ("data/cells", "the same as"),
        ("data/cells/raw", "inside"),
        ("data/smoke/val", "inside"),
        ("runs/demo/detection/x", "inside"),
        ("reports/coco", "the same as"),
        ("data", "a parent of"),
        (".", "a parent of"),
        ("..", "a parent of"),
        (".state/sets", "inside"),
        ("params/../data/cells", "the same as"),
        ("data/Cells", "the same as"),
        ("link/cells", "the same as"),
        ("data/cells/elsewhere", "inside"),
        ("/", "a parent of"),
    ],
)
def test_a_dataset_among_results_is_refused_with_both_paths(own: Path, dataset: str, relation: str) -> None:
    (own / "data" / "cells").mkdir(parents=True)
    (own / "link").symlink_to(own / "data")
    (own.parent / "elsewhere").mkdir()
    (own / "data" / "cells" / "elsewhere").symlink_to(own.parent / "elsewhere")
    with pytest.raises(ConfigError, match=f"FOLDER: expected a dataset apart .*, which is {relation} ") as raised:
        dataset_location.require_apart(dataset, "FOLDER", ["cells"])
    assert str(own / dataset) in str(raised.value)


def test_an_output_that_is_a_link_to_the_dataset_is_refused(own: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (own / "data").mkdir()
    (own / "data" / "cells").symlink_to(tmp_path / "set")
    with pytest.raises(ConfigError, match="the same as"):
        dataset_location.require_apart(str(tmp_path / "set"), "FOLDER", ["cells"])


@pytest.mark.parametrize("dataset", ["data/cells-raw", "data/cellsraw", "sets/cells", "runs/mine", "/somewhere", "data/coco2017"])
def test_a_dataset_beside_results_is_taken(own: Path, dataset: str) -> None:
    dataset_location.require_apart(dataset, "FOLDER", ["cells"])


@pytest.mark.parametrize(("name", "where"), [("cells", "data/cells"), ("cellsraw", "data/cellsraw/raw"), ("x", "data/demo")])
def test_adopt_makes_no_profile_for_a_dataset_among_results(own: Path, name: str, where: str) -> None:
    root = write_whole(own / where)
    (root / "dataset.json").unlink()
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="FOLDER: expected a dataset apart from all results"):
        adoption.adopt(root, name, "demo", 0.25)
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before


def test_adopt_makes_no_profile_whose_results_would_go_where_another_dataset_lies(own: Path, tmp_path: Path) -> None:
    first, second = write_whole(own / "data" / "cells"), write_whole(tmp_path / "other")
    for root in (first, second):
        (root / "dataset.json").unlink()
    adoption.adopt(first, "mine", "demo", 0.25)
    with pytest.raises(ConfigError, match=r"--name cells: params/mine/source: .*/data/cells, which is the same"):
        adoption.adopt(second, "cells", "demo", 0.25)


@pytest.mark.parametrize("where", ["data/cells", "data/cells/raw"])
def test_a_profile_whose_dataset_lies_among_results_is_refused_and_the_dataset_stays(own: Path, where: str) -> None:
    root = write_whole(own / where)
    content = tiny_parameters()
    part = {"images": "train", "instances": "instances_train.json", "panoptic": None, "panoptic_masks": None}
    folder = {"root": where, "format": "coco", "val_share": 0.25, "train": part, "val": None}
    content["data"] |= {"source": "folder", "scenes": None, "folder": folder}
    write_parameters(own / "params" / "cells.yaml", content)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for attempt in (
        lambda: settings.load("cells"),
        lambda: data.run(build(Profile, content, "x.yaml"), Paths("cells"), Silent()),
    ):
        with pytest.raises(
            ConfigError, match=r"params/cells\.yaml: data\.folder\.root: expected a dataset apart from all results"
        ):
            attempt()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
