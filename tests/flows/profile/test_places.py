"""A dataset's folder must not overlap with results, and a profile that breaks this rule does not affect other profiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from detr_core.config import ConfigError, build
from detr_core.reporter import Silent
from flows import data
from flows.new_profile import adoption
from flows.profile import paths, places, settings
from flows.profile.paths import PARAMS, Paths
from flows.profile.settings import Profile
from tests.check.datasets import write_whole
from tests.conftest import tiny_parameters, write_parameters


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a project with a copy of the profiles of this project."""
    root = tmp_path / "project"
    shutil.copytree(PARAMS, root / "params")
    shutil.copy(PARAMS.parent / "dvc.yaml", root)
    for module in (paths, settings):
        monkeypatch.setattr(module, "PARAMS", root / "params")
    for module in (data, paths):
        monkeypatch.setattr(module, "ROOT", root)
    monkeypatch.setattr(paths, "MAIN", root)
    for name in ("STATE", "SHARED"):
        monkeypatch.setattr(paths, name, root / ".state")
    return root


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
        places.require_apart(dataset, "FOLDER", ["cells"])
    assert str(own / dataset) in str(raised.value)


def test_an_output_that_is_a_link_to_the_dataset_is_seen(own: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (own / "data").mkdir()
    (own / "data" / "cells").symlink_to(tmp_path / "set")
    with pytest.raises(ConfigError, match="the same as"):
        places.require_apart(str(tmp_path / "set"), "FOLDER", ["cells"])


@pytest.mark.parametrize("dataset", ["data/cells-raw", "data/cellsraw", "sets/cells", "runs/mine", "/somewhere", "data/coco2017"])
def test_a_dataset_beside_results_is_taken(own: Path, dataset: str) -> None:
    places.require_apart(dataset, "FOLDER", ["cells"])


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
def test_whatever_the_profile_says_its_dataset_stays(own: Path, where: str) -> None:
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


def test_a_profile_that_dvc_can_not_read_is_named(own: Path) -> None:
    shutil.copy(PARAMS.parent / "profile.yaml", own)
    assert places.dvc_errors() == []
    texts = {
        "copy": "profile: smoke\nkind: detr\nbuilds_on: transformer\nwd: ../..\n",
        "torn": "profile: [\n",
        "list": "- 1\n",
        "good": "profile: good\nkind: detr\nbuilds_on: transformer\nwd: ../..\n",
    }
    for name, text in texts.items():
        (own / "params" / name).mkdir()
        (own / "params" / name / "profile.yaml").write_text(text)
        (own / "params" / name / "dvc.yaml").write_text("")
    (own / "params" / "torn" / "profile.yaml").unlink()
    errors = places.dvc_errors()
    assert [error.split(":")[0] for error in errors] == [f"params/{name}/profile.yaml" for name in ("list", "smoke", "torn")]
    assert "expected another name than in params/copy/profile.yaml, found 'smoke'" in errors[1]
    assert "No such file" in errors[2]


def test_dvc_runs_the_other_profiles_whatever_the_dataset_of_one_is(own: Path) -> None:
    shutil.copy(PARAMS.parent / "profile.yaml", own)
    datasets = {
        "same": "data/same",
        "inside": "data/inside/raw",
        "above": ".",
        "other": "data/smoke",
        "gone": "nowhere",
        "self": "self",
    }
    for name, target in datasets.items():
        (own / "params" / name).mkdir()
        (own / "params" / name / "profile.yaml").write_text(f"profile: {name}\nkind: detr\nbuilds_on: transformer\nwd: ../..\n")
        shutil.copy(PARAMS.parent / "dvc.yaml", own / "params" / name)
        Paths(name).source.symlink_to(Path("../..", target) if target != "self" else "source")
        (own / "params" / f"{name}.yaml").write_text("data: [")
    with Repo.init(str(own), no_scm=True) as repo:
        repo.index.check_graph()
        assert places.dvc_errors() == []
        stage = repo.stage.load_one(str(own / "params" / "same" / "dvc.yaml"), "data")
        assert str(Paths("same").source) in {dependency.fs_path for dependency in stage.deps}
        assert str(own / "data" / "same") in {output.fs_path for output in stage.outs}


def test_a_kind_of_detector_that_dvc_would_not_watch_is_refused(own: Path) -> None:
    folder = own / "params" / "mine"
    folder.mkdir()
    (folder / "profile.yaml").write_text("profile: mine\nkind: detr\nbuilds_on: transformer\nwd: ../..\n")
    places.require_kind(Paths("mine"), "detr")
    message = r"params/mine/profile\.yaml: kind: expected 'deformable', as detector\.kind in params/mine\.yaml, found 'detr'"
    with pytest.raises(ConfigError, match=message):
        places.require_kind(Paths("mine"), "deformable")
    (folder / "profile.yaml").write_text("profile: mine\nkind: faster_rcnn\nbuilds_on: transformer\nwd: ../..\n")
    message = r"params/mine/profile\.yaml: builds_on: expected 'regions', as the kind 'faster_rcnn' does, found 'transformer'"
    with pytest.raises(ConfigError, match=message):
        places.require_kind(Paths("mine"), "faster_rcnn")


def test_a_profile_of_before_the_folder_of_the_region_detectors_is_told_the_value(own: Path) -> None:
    folder = own / "params" / "mine"
    folder.mkdir()
    for kind in ("faster_rcnn", "mask_rcnn", "panoptic_fpn"):
        (folder / "profile.yaml").write_text(f"profile: mine\nkind: {kind}\nbuilds_on: common\nwd: ../..\n")
        message = rf"params/mine/profile\.yaml: builds_on: expected 'regions', as the kind '{kind}' does, found 'common'"
        with pytest.raises(ConfigError, match=message):
            places.require_kind(Paths("mine"), kind)
        (folder / "profile.yaml").write_text(f"profile: mine\nkind: {kind}\nbuilds_on: regions\nwd: ../..\n")
        places.require_kind(Paths("mine"), kind)


def test_the_error_of_a_profile_without_the_newer_key_names_the_value(own: Path) -> None:
    shutil.copy(PARAMS.parent / "profile.yaml", own)
    (own / "params" / "mine").mkdir()
    (own / "params" / "mine" / "dvc.yaml").write_text("")
    for content, said in (
        ("profile: mine\nkind: detr\nwd: ../..\n", "builds_on: expected 'transformer', found None"),
        ("profile: mine\nkind: mask_rcnn\nwd: ../..\n", "builds_on: expected 'regions', found None"),
        ("profile: mine\nkind: yolo\nwd: ../..\n", "builds_on: expected text, found None"),
        ("profile: mine\nkind: [detr]\nwd: ../..\n", "kind: expected text, found ['detr']"),
    ):
        (own / "params" / "mine" / "profile.yaml").write_text(content)
        (error,) = places.dvc_errors()
        assert error.startswith("params/mine/profile.yaml: ")
        assert said in error
