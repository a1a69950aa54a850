"""Runs the stages of a tiny profile once, in a temporary folder, for all tests that examine results."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from detr_core import directories
from detr_core.config import build
from detr_core.reporter import Memory
from flows.profile import artifacts, paths
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.runtime import launch

ROOT = paths.ROOT

# A shell that starts us in the background has us ignore ctrl-c, and every process that a test starts and interrupts would too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests into an order in which two processes finish at about the same time.

    The first test builds the results of the smoke profile, which takes longest. Meanwhile the other process runs the tests of the
    core. Then both run the tests that need these results, and the short tests are left for the end.
    """
    smoke = [item for item in items if "smoke" in getattr(item, "fixturenames", ())]
    core = [item for item in items if item not in smoke and "flows" not in item.path.parts]
    rest = [item for item in items if item not in smoke and "flows" in item.path.parts]
    items[:] = [*smoke[:1], *core, *smoke[1:], *rest]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={2**20}", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this system lets nobody mount a file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@dataclass(frozen=True)
class Trained:
    """A profile whose stages have all run. metrics: what each returned. told: what each told of its progress."""

    settings: Profile
    paths: Paths
    metrics: dict[str, dict[str, float]]
    told: dict[str, Memory]


def tiny_parameters() -> dict[str, Any]:
    """The smoke profile with a handful of images."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text(encoding="utf-8"))
    content["data"]["scenes"] |= {"train": 24, "val": 6, "size": 64, "object_size": [16, 32]}
    for stage in ("train_detection", "train_panoptic"):
        content[stage] |= {"epochs": 1, "batch_size": 8, "checkpoint_every": 2}
    content["evaluate"]["panoptic"]["threshold"] = 0.05  # so that an untrained head keeps some segments
    content["report"]["pictures"] = 2
    content["resources"] |= {"processes": 1, "workers": 0}
    return content


def tiny_settings() -> Profile:
    """The tiny profile, as the stages get it."""
    return build(Profile, tiny_parameters(), "tiny.yaml")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that stands for the project's, so that results of tests lie neither among real ones nor in the checkout."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "dvc.yaml", root)  # new profiles get a copy of it
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", root)
        for module in (paths, launch):
            patch.setattr(module, "STATE", root / ".state")
        yield root


@pytest.fixture(scope="session")
def trained(project: Path) -> Trained:
    """The tiny profile after all its stages, in the order of the pipeline."""
    # Seconds, only where it is asked for.
    from flows import ablations, check, data, evaluate, report, train_detection, train_panoptic

    settings, where = tiny_settings(), Paths("tiny")
    metrics: dict[str, dict[str, float]] = {}
    told: dict[str, Memory] = {}
    for stage in (data, check, train_detection, train_panoptic, evaluate, ablations, report):
        name = stage.__name__.removeprefix("flows.")
        told[name] = Memory()
        metrics[name] = stage.run(settings, where, told[name])
    return Trained(settings, where, metrics, told)


def copy_data(source: Paths, target: Paths) -> None:
    """A profile's data, as it was made and as it was checked, for another profile, in place of what that has."""
    for earlier, folder in ((source.data, target.data), (source.dataset, target.dataset)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(earlier, folder)
        artifacts.claim(folder, target.profile)
    file = target.dataset / "dataset.json"
    text = file.read_text(encoding="utf-8").replace(f"data/{source.profile}", f"data/{target.profile}")
    file.write_text(text, encoding="utf-8")
    for folder in (target.data, target.dataset):
        directories.mark(folder)
