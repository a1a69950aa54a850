"""Runs the stages of a tiny profile once, in a temporary folder, for all tests that examine results."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from detr_core import directories
from detr_core.config import build
from detr_core.download import resuming
from detr_core.reporter import Reporter
from flows.profile import paths, stage_results
from flows.profile.paths import Paths
from flows.profile.settings import Profile
from flows.runtime import launch
from tests.recording_reporter import RecordingReporter

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


LARGE = 2**20  # bytes


@pytest.fixture(autouse=True)
def without_large_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """Deletes large files in a test's folder after the test. All files of weights together would fill a disk.

    The folders themselves stay, so that each has another name: MLflow remembers databases by their paths.
    """
    own = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    yield
    if own is not None:
        for folder, _, names in os.walk(own):
            for file in (Path(folder) / name for name in names):
                with suppress(FileNotFoundError):
                    if not file.is_symlink() and file.stat().st_size > LARGE:
                        file.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mounts a file system of one MiB and yields its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={2**20}", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this system lets nobody mount a file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the pauses between the tries of a download."""
    monkeypatch.setattr(resuming, "PAUSES", (0.0, 0.0))


@dataclass(frozen=True)
class Trained:
    """A profile whose stages have all run.

    metrics: the values that each stage returned. reporters: the reporter of each stage, which stores its progress.
    """

    settings: Profile
    paths: Paths
    metrics: dict[str, dict[str, float]]
    reporters: dict[str, RecordingReporter]


def read_parameters(file: Path) -> dict[str, Any]:
    """Returns the content of a profile; `studies` has that of its second file."""
    content, studies = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (file, paths.studies_file(file)))
    return {**content, "studies": studies}


def write_parameters(file: Path, content: dict[str, Any]) -> None:
    """Writes a content like that of `read_parameters` to both files of a profile."""
    plain = {section: value for section, value in content.items() if section != "studies"}
    for path, part in ((file, plain), (paths.studies_file(file), content["studies"])):
        path.write_text(yaml.safe_dump(part, sort_keys=False), encoding="utf-8")


def tiny_parameters() -> dict[str, Any]:
    """Returns the content of the smoke profile with a handful of images; `studies` has that of its second file."""
    content = read_parameters(ROOT / "params" / "smoke.yaml")
    content["data"]["scenes"] |= {"train": 24, "val": 6, "size": 64, "object_size": [16, 32]}
    for stage in ("train_detection", "train_panoptic"):
        content[stage] |= {"epochs": 1, "batch_size": 8, "checkpoint_every": 2}
    content["evaluate"]["panoptic"]["threshold"] = 0.05  # so that an untrained head keeps some segments
    content["report"]["pictures"] = 2
    content["resources"] |= {"processes": 1, "workers": 0}
    return content


def tiny_settings() -> Profile:
    """Returns the tiny profile as the stages read it."""
    return build(Profile, tiny_parameters(), "tiny.yaml")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for the project's, so that results of tests lie neither among real ones nor in the checkout."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "dvc.yaml", root)  # new profiles get a copy of it
    return root


@contextmanager
def in_place_of_the_project(root: Path) -> Iterator[None]:
    """During the block `root` is the folder in which this process's stages keep their results and their state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", root)
        for module in (paths, launch):
            patch.setattr(module, "STATE", root / ".state")
        yield


@pytest.fixture(autouse=True)
def _project_of_the_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that uses the fixture `project` works in that folder; every other test works in the checkout."""
    if "project" in request.fixturenames:
        with in_place_of_the_project(request.getfixturevalue("project")):
            yield
    else:
        yield


@contextmanager
def trainings_in_this_process() -> Iterator[None]:
    """During the block a training of one process takes place in this process: one of its own takes seconds to start.

    The smoke profile, tests/flows/runtime/test_launch.py and tests/jobs train in processes of their own.
    """
    import torch  # seconds, only where it is asked for

    from detr_core.distributed import single_process
    from detr_core.jobs.training import TrainingJob
    from tests.jobs.training_process import carry_out

    def run(job: dict[str, Any], processes: int, reporter: Reporter, **_: Any) -> None:
        assert processes == 1
        carry_out(TrainingJob(**job), single_process(torch.device("cpu")), reporter)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", run)
        yield


@pytest.fixture
def trains_here() -> Iterator[None]:
    """Trainings take place in the test's process, for tests of what comes before and after a training."""
    with trainings_in_this_process():
        yield


@pytest.fixture(scope="session")
def trained(project: Path) -> Trained:
    """Runs all stages of the tiny profile in the order of the pipeline, and returns their results."""
    # Seconds, only where it is asked for.
    from flows import check, data, evaluate, report, train_detection, train_panoptic
    from flows.studies import evaluating

    settings = tiny_settings()
    metrics: dict[str, dict[str, float]] = {}
    reporters: dict[str, RecordingReporter] = {}
    with in_place_of_the_project(project), trainings_in_this_process():
        where = Paths("tiny")
        for stage in (data, check, train_detection, train_panoptic, evaluate, evaluating, report):
            name = "studies" if stage is evaluating else stage.__name__.removeprefix("flows.")
            reporters[name] = RecordingReporter()
            metrics[name] = stage.run(settings, where, reporters[name])
    return Trained(settings, where, metrics, reporters)


def copy_data(source: Paths, target: Paths) -> None:
    """Copies the data and the checked dataset of one profile to another profile, and replaces those that it has."""
    for earlier, folder in ((source.data, target.data), (source.dataset, target.dataset)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(earlier, folder)
        stage_results.write_owner(folder, target.profile)
    file = target.dataset / "dataset.json"
    text = file.read_text(encoding="utf-8").replace(f"data/{source.profile}", f"data/{target.profile}")
    file.write_text(text, encoding="utf-8")
    for folder in (target.data, target.dataset):
        directories.mark(folder)
