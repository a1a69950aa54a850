"""No command changes or removes a file that the project did not create, in any folder."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from detr_core import directories
from detr_core.config import ConfigError, build
from detr_core.errors import ExpectedError
from detr_core.reporter import Silent
from flows import check, data, evaluate, report, train_panoptic
from flows.new_profile import adoption
from flows.profile import paths, stage_results
from flows.profile import settings as profiles
from flows.profile.paths import PARAMS, Paths
from flows.profile.settings import Profile
from flows.runtime import launch, outputs
from flows.studies import evaluating
from tests.check.datasets import write_whole
from tests.conftest import Trained, tiny_parameters

OUTPUTS = ("data/mine", "runs/mine/check", "runs/mine/dataset", "runs/mine/panoptic", "runs/mine/evaluation", "reports/mine")
OWN = ("data", "check", "dataset", "detection", "panoptic", "evaluation", "report")
FOLDERS = (
    *OUTPUTS,
    *("data", "runs", "runs/mine", "reports", "params", "params/mine", "sets"),
    *("runs/mine/studies", "runs/mine/studies/evaluating", "runs/mine/studies/evaluating/scoring"),
    *("data/mine/annotations", "data/mine/train", "data/mine/photos", "runs/mine/check/plots", "reports/mine/plots"),
    *("data/.mine.x.tmp", "data/.mine.part", "data/.mine.earlier", "runs/mine/.check.y.old", ".state", ".state/unfinished/mine"),
)
NAMES = (
    *("photo.jpg", "dataset.json", "metrics.json", "index.html", "notes.txt", "profile.yaml", "predictions.json"),
    *("studies.json", ".hidden"),
)


@dataclass(frozen=True)
class Tree:
    """A user's files in a project. files: place, name, content. linked: outputs that are links to a folder of the user."""

    has_results: bool  # whether the profile's own results are there first
    files: list[tuple[str, str, bytes]]
    linked: list[str]
    empty_files: list[str]  # outputs in whose place a file lies


TREES = st.builds(
    Tree,
    st.booleans(),
    st.lists(
        st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES), st.binary(min_size=1, max_size=8)), min_size=1, max_size=5
    ),
    st.lists(st.sampled_from(OUTPUTS), max_size=1),
    st.lists(st.sampled_from(OUTPUTS), max_size=1),
)


def lay(root: Path, tree: Tree) -> dict[Path, bytes]:
    """Writes a user's files into a project, and returns their contents by path."""
    for output in tree.linked:
        target = root / "user" / output.replace("/", "-")
        target.mkdir(parents=True, exist_ok=True)
        (target / "photo.jpg").write_bytes(b"linked")
        if not os.path.lexists(root / output):
            (root / output).parent.mkdir(parents=True, exist_ok=True)
            (root / output).symlink_to(target)
        else:
            (root / output / "link").symlink_to(target)
    for output in tree.empty_files:
        if not os.path.lexists(root / output):
            (root / output).parent.mkdir(parents=True, exist_ok=True)
            (root / output).write_bytes(b"a file")
    files = {path for path in (root / "user").rglob("*") if path.is_file()}
    files |= {root / output for output in tree.empty_files if (root / output).is_file()}
    for folder, name, content in tree.files:
        with suppress(NotADirectoryError, FileExistsError):
            (root / folder).mkdir(parents=True, exist_ok=True)
            file = root / folder / name
            file.unlink(missing_ok=True)  # a link into the session's results, or a read-only file
            file.write_bytes(content)
            files.add(file)
    return {path: path.read_bytes() for path in files}


def own_settings(**sections: Any) -> Profile:
    changes = {"train_panoptic": None, "studies": {"evaluating": {}, "training": {}}}
    return build(Profile, tiny_parameters() | changes | sections, "mine.yaml")


def from_folder(root: str) -> Profile:
    content = tiny_parameters()
    part = {"images": "train", "instances": "instances_train.json", "panoptic": None, "panoptic_masks": None}
    folder = {"root": root, "format": "coco", "val_share": 0.25, "train": part, "val": None}
    return own_settings(data=content["data"] | {"source": "folder", "scenes": None, "folder": folder})


def adopted(root: Path, where: str) -> None:
    write_whole(root / where)
    (root / where / "dataset.json").unlink()
    adoption.adopt(root / where, "mine", "smoke", 0.25)


COMMANDS: dict[str, Callable[[Path], Any]] = {
    "data": lambda root: data.run(own_settings(), Paths("mine"), Silent()),
    "check": lambda root: check.run(own_settings(), Paths("mine"), Silent()),
    "panoptic": lambda root: train_panoptic.run(own_settings(), Paths("mine"), Silent()),
    "studies": lambda root: evaluating.run(own_settings(), Paths("mine"), Silent()),
    "a set that is an output": lambda root: data.run(from_folder("data/mine"), Paths("mine"), Silent()),
    "a set in an output": lambda root: data.run(from_folder("data/mine/photos"), Paths("mine"), Silent()),
    "a set around an output": lambda root: data.run(from_folder("data"), Paths("mine"), Silent()),
    "adopt": lambda root: adopted(root, "elsewhere"),
    "adopt in data": lambda root: adopted(root, "data/other"),
}
SLOW: dict[str, Callable[[Path], Any]] = {
    "evaluate": lambda root: evaluate.run(own_settings(), Paths("mine"), Silent()),
    "report": lambda root: report.run(own_settings(), Paths("mine"), Silent()),
    "evaluate a checkpoint": lambda root: evaluate.run_checkpoint(
        argparse.Namespace(profile="mine", out=root / "sets", checkpoint="none.pt", sha256=None, dilation=None), Silent()
    ),
}


@contextmanager
def project_of(trained: Trained, has_results: bool) -> Iterator[Path]:
    """Yields a temporary project; with `has_results`, it has the results of the tiny profile as those of the profile `mine`."""
    theirs = {name: getattr(trained.paths, name) for name in OWN}
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        root = Path(folder).resolve()
        shutil.copytree(PARAMS, root / "params", ignore=shutil.ignore_patterns("coco*", "demo*", "dvc.lock"))
        shutil.copy(PARAMS.parent / "dvc.yaml", root)
        for module in (data, paths):
            patch.setattr(module, "ROOT", root)
        for module in (paths, profiles):
            patch.setattr(module, "PARAMS", root / "params")
        for module in (paths, launch):
            patch.setattr(module, "STATE", root / ".state")
        patch.setattr(paths, "SHARED", root / ".state")
        patch.setattr(paths, "MAIN", root)
        if has_results:
            for name in OWN:
                made_one: Path = getattr(Paths("mine"), name)
                shutil.copytree(theirs[name], made_one)
                if name in ("data", "dataset"):
                    stage_results.write_owner(made_one, "mine")
                    directories.mark(made_one)
        yield root


def require_untouched(trained: Trained, tree: Tree, command: Callable[[Path], Any]) -> None:
    with project_of(trained, tree.has_results) as root:
        before = lay(root, tree)
        with suppress(ExpectedError):
            command(root)
        after = {path: path.read_bytes() if path.is_file() else None for path in before}
        assert after == before
        leftovers = [path.name for path in root.rglob(".*.tmp") if path.is_dir() and path.name != ".mine.x.tmp"]
        assert leftovers == []


@pytest.mark.parametrize("name", COMMANDS)
@hypothesis_settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=TREES)
def test_a_users_files_stay_as_they_are(trained: Trained, name: str, tree: Tree) -> None:
    require_untouched(trained, tree, COMMANDS[name])


@pytest.mark.long
@pytest.mark.parametrize("name", [*COMMANDS, *SLOW])
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(tree=TREES)
def test_a_users_files_stay_as_they_are_in_many_trees(trained: Trained, name: str, tree: Tree) -> None:
    require_untouched(trained, tree, (COMMANDS | SLOW)[name])


def test_what_commands_write_on_request_must_be_new(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "weights.pth").write_bytes(b"mine")
    (tmp_path / "link.pth").symlink_to(tmp_path / "nothing")
    for refused in (tmp_path / "full", tmp_path / "link.pth"):
        with pytest.raises(ConfigError, match=r"--out .* expected a new or an empty folder"):
            outputs.empty_folder(refused)
    for file in (tmp_path / "full" / "weights.pth", tmp_path / "full", tmp_path / "link.pth"):
        with pytest.raises(ConfigError, match=r"--out .* expected the name of a new file, found an existing file"):
            outputs.new_file(file)
    assert outputs.new_file(tmp_path / "new.pth") == tmp_path / "new.pth"
