"""Stores with each run what flows/rerun/repetition.py needs to repeat and compare it, as MLflow artifacts and tags.

At the start of a run these are the two files of the profile, the difference of the code from its commit, and the processor, GPUs,
processes and threads that do the work. At its end it is a digest of each result file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import yaml

from detr_core.directories import MARK
from detr_core.processor import processor_name
from flows.profile.paths import ROOT, Paths
from flows.profile.settings import read_resources
from flows.runtime import launch
from flows.tracking import lineage

ORIGIN = "origin"  # the folder of these files among the run's artifacts
PARAMS = "params.yaml"
STUDIES = "studies.yaml"
PATCH = "changes.patch"
RESULTS = "results.json"  # maps the path of each file, relative to the project, to its digest
NO_PATCH = "git.no_patch"  # the tag that says why changed code was not kept
NEW_FILES = "git.new_files"  # the tag that names files that git doesn't know and the patch doesn't hold
CODE = ("detr_core/", "flows/", "params/")  # a file in these folders that git doesn't know counts as code
LARGEST_FILE = 1_000_000
LARGEST_PATCH = 5_000_000


class ActiveRun(Protocol):
    """A run that is being recorded, as far as this module needs it."""

    def tag(self, name: str, value: str) -> None: ...

    def artifact(self, file: Path, folder: str | None = None) -> None: ...


@dataclass(frozen=True)
class Changes:
    """The differences of a checkout from its commit.

    patch: the difference in the form of `git apply`, with new files of CODE. others: new files in other folders. too_large: new
    files of CODE that are larger than LARGEST_FILE, and therefore not in the patch.
    """

    patch: bytes
    others: tuple[str, ...]
    too_large: tuple[str, ...]


def keep(record: ActiveRun, paths: Paths) -> None:
    """Records the profile, the uncommitted changes of the code, and the machine, when a run starts."""
    for name, value in machine(paths).items():
        record.tag(name, value)
    with TemporaryDirectory() as folder:
        for file, name in ((paths.params, PARAMS), (paths.studies_params, STUDIES)):
            if file.is_file():
                shutil.copyfile(file, Path(folder) / name)
        local_changes = changes(ROOT)
        if local_changes is not None and local_changes.others:
            record.tag(NEW_FILES, _names_text(local_changes.others))
        if local_changes is not None and local_changes.too_large:
            record.tag(
                NO_PATCH, f"{_names_text(local_changes.too_large)}: not in git, and larger than {LARGEST_FILE / 1e6:.0f} MB"
            )
        elif local_changes is not None and len(local_changes.patch) > LARGEST_PATCH:
            record.tag(NO_PATCH, f"{len(local_changes.patch) / 1e6:.1f} MB of changes, more than {LARGEST_PATCH / 1e6:.0f} MB")
        elif local_changes is not None and (local_changes.patch or local_changes.others):
            (Path(folder) / PATCH).write_bytes(local_changes.patch)
        for file in sorted(Path(folder).iterdir()):
            record.artifact(file, ORIGIN)


def keep_results(record: ActiveRun, stage: str, paths: Paths, name: str | None) -> None:
    """Records the digests of a run's result files when the run has succeeded. name: the study, in the stage `studies`."""
    folders = [ROOT / out for out in outputs(stage, paths, name)]
    with TemporaryDirectory() as folder:
        file = Path(folder) / RESULTS
        file.write_text(json.dumps(digests(folders), indent=0), encoding="utf-8")
        record.artifact(file, ORIGIN)


def outputs(stage: str, paths: Paths, study: str | None = None) -> list[str]:
    """Returns the outputs of a stage in dvc.yaml, as paths relative to the project; none if dvc.yaml has no such stage.

    study: the evaluating study whose folder in the output of the stage `studies` is returned instead of the whole output.
    """
    graph = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = [next(iter(out)).replace("${profile}", paths.profile) for out in graph.get(stage, {}).get("outs", [])]
    return outs if study is None else [f"{out}/{study}" for out in outs]


def digests(folders: list[Path]) -> dict[str, str]:
    """Maps the path of each file in these folders, relative to the project, to its MD5."""
    checksums = {}
    for folder in filter(Path.is_dir, folders):
        for name, digest in lineage.file_hashes(folder).items():
            file = folder / name
            if file.name == MARK:  # it lists digests of the other files, also of pages whose addresses change with each run
                continue
            checksums[file.relative_to(ROOT).as_posix()] = digest if file.suffix != ".html" else _without_addresses(file)
    return checksums


def _without_addresses(page: Path) -> str:
    # Addresses of MLflow runs differ from run to run, so the digest of a page leaves them out.
    return hashlib.md5(
        re.sub(rb"(?:make serve, then )?https?://[^\s\"'<]*", b"", page.read_bytes()), usedforsecurity=False
    ).hexdigest()


def machine(paths: Paths) -> dict[str, str]:
    """Returns, as tags `machine.*`, what can change the last bits of a result: processor, PyTorch, GPUs, processes, threads."""
    tags = {
        "machine.processor": processor_name(),
        "machine.python": platform.python_version(),
        "machine.torch": version("torch"),
    }
    if paths.params.is_file():
        resources = read_resources(paths.params)
        processes, gpus = launch.process_count(resources), launch.gpus(resources)
        threads = os.environ.get("OMP_NUM_THREADS", str(launch.threads(processes)))
        tags |= {"machine.processes": str(processes), "machine.threads": threads, "machine.gpus": str(len(gpus))}
    return tags


def changes(root: Path) -> Changes | None:
    """Returns how the files at `root` differ from the commit that is checked out there; None if there is no git or no commit.

    Files that DVC writes (dvc.lock and its settings) are ignored.
    """
    untracked = lineage.git_output(root, "ls-files", "--others", "--exclude-standard", "-z")
    index = lineage.git_output(root, "rev-parse", "--git-path", "index")
    if untracked is None or index is None or not (root / os.fsdecode(index).strip()).is_file():
        return None
    new = [name for name in os.fsdecode(untracked).split("\0") if name and Path(name).name != "dvc.lock"]
    too_large = [name for name in new if name.startswith(CODE) and (root / name).lstat().st_size > LARGEST_FILE]
    code = [name for name in new if name.startswith(CODE) and name not in too_large]
    with TemporaryDirectory() as folder:
        # New files are added to a copy of git's index: then the difference contains them, and git's own index stays as it is.
        index_copy = Path(folder) / "index"
        shutil.copyfile(root / os.fsdecode(index).strip(), index_copy)
        environment = {"GIT_INDEX_FILE": str(index_copy)}
        if code and lineage.git_output(root, "add", "--intent-to-add", "--", *code, environment=environment) is None:
            return None
        form = ("--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")
        patch = lineage.git_output(root, "diff", *form, "HEAD", "--", *lineage.NOT_DVCS, environment=environment)
    others = tuple(name for name in new if not name.startswith(CODE))
    return None if patch is None else Changes(patch, others, tuple(too_large))


def _names_text(names: tuple[str, ...], limit: int = 20) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
