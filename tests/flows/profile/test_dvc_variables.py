"""An unusable `profile.yaml` is reported, and a profile with a misplaced dataset does not affect other profiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from detr_core.config import ConfigError
from flows.profile import dvc_variables
from flows.profile.paths import PARAMS, Paths


def test_every_profile_yaml_that_dvc_can_not_use_is_named(own: Path) -> None:
    shutil.copy(PARAMS.parent / "profile.yaml", own)
    assert dvc_variables.dvc_errors() == []
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
    errors = dvc_variables.dvc_errors()
    assert [error.split(":")[0] for error in errors] == [f"params/{name}/profile.yaml" for name in ("list", "smoke", "torn")]
    assert "expected a name that no other profile.yaml has; params/copy/profile.yaml has 'smoke' too" in errors[1]
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
        assert dvc_variables.dvc_errors() == []
        stage = repo.stage.load_one(str(own / "params" / "same" / "dvc.yaml"), "data")
        assert str(Paths("same").source) in {dependency.fs_path for dependency in stage.deps}
        assert str(own / "data" / "same") in {output.fs_path for output in stage.outs}


def test_a_kind_of_detector_that_dvc_would_not_watch_is_refused(own: Path) -> None:
    folder = own / "params" / "mine"
    folder.mkdir()
    (folder / "profile.yaml").write_text("profile: mine\nkind: detr\nbuilds_on: transformer\nwd: ../..\n")
    dvc_variables.require_kind(Paths("mine"), "detr")
    message = r"params/mine/profile\.yaml: kind: expected 'deformable', as detector\.kind in params/mine\.yaml, found 'detr'"
    with pytest.raises(ConfigError, match=message):
        dvc_variables.require_kind(Paths("mine"), "deformable")
    (folder / "profile.yaml").write_text("profile: mine\nkind: faster_rcnn\nbuilds_on: transformer\nwd: ../..\n")
    message = r"params/mine/profile\.yaml: builds_on: expected 'regions', as the kind 'faster_rcnn' does, found 'transformer'"
    with pytest.raises(ConfigError, match=message):
        dvc_variables.require_kind(Paths("mine"), "faster_rcnn")


def test_the_error_of_a_profile_of_an_earlier_version_names_the_expected_folder(own: Path) -> None:
    folder = own / "params" / "mine"
    folder.mkdir()
    for kind in ("faster_rcnn", "mask_rcnn", "panoptic_fpn"):
        (folder / "profile.yaml").write_text(f"profile: mine\nkind: {kind}\nbuilds_on: common\nwd: ../..\n")
        message = rf"params/mine/profile\.yaml: builds_on: expected 'regions', as the kind '{kind}' does, found 'common'"
        with pytest.raises(ConfigError, match=message):
            dvc_variables.require_kind(Paths("mine"), kind)
        (folder / "profile.yaml").write_text(f"profile: mine\nkind: {kind}\nbuilds_on: regions\nwd: ../..\n")
        dvc_variables.require_kind(Paths("mine"), kind)


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
        (error,) = dvc_variables.dvc_errors()
        assert error.startswith("params/mine/profile.yaml: ")
        assert said in error
