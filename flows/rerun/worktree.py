"""Restores the project as a run used it: a git work tree with the run's commit, uncommitted changes, parameters and data."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from detr_core.errors import ExpectedError
from flows.profile.paths import MAIN, SHARED, Paths, relative, studies_file
from flows.profile.profile_yaml import parsed
from flows.tracking import lineage, snapshot
from flows.tracking.reader import RecordedRun

LOCK = "requirements.lock"


class RerunError(ExpectedError, RuntimeError):
    """A run can't be repeated. The message says what is not available, and what would help."""


def folder_of(run: RecordedRun) -> Path:
    """Returns the folder of the first work tree of a run."""
    return SHARED / "rerun" / run.run_id


def make(run: RecordedRun) -> Path:
    """Makes a work tree for the run and returns its folder. Raises RerunError if code or data of the run are not available.

    After an error the new work tree is removed. Earlier work trees of the same run stay as they are, because a user kept them or
    another command works in them.
    """
    tree = _new_folder(folder_of(run))
    try:
        _code(run, tree)
        _params(run, tree)
        _data(run, tree)
    except BaseException:
        remove(tree)
        raise
    return tree


def _new_folder(first: Path) -> Path:
    """Creates the folder `first`; if it exists, the first of `first-2`, `first-3` and so on that does not exist."""
    first.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("itertools.count does not end")


def remove(tree: Path) -> None:
    """Removes a work tree that this command made, also one that is incomplete or missing."""
    shutil.rmtree(tree, ignore_errors=True)
    _git(MAIN, "worktree", "prune")


def other_packages(tree: Path) -> list[str]:
    """Lists the packages whose version in the tree's requirements.lock differs from this checkout's: 'torch 2.14 (here 2.15)'."""
    recorded, present = (_versions(folder / LOCK) for folder in (tree, MAIN))
    return [
        f"{name} {recorded.get(name, 'missing')} (here {present.get(name, 'missing')})"
        for name in sorted(recorded.keys() | present.keys())
        if recorded.get(name) != present.get(name)
    ]


def _code(run: RecordedRun, tree: Path) -> None:
    commit = run.tags.get("git.commit")
    if commit is None:
        raise RerunError(f"run {run.run_id}: the commit is not known, because the run did not take place in a git repository")
    if not _git(MAIN, "cat-file", "-e", f"{commit}^{{commit}}")[0]:
        raise RerunError(
            f"run {run.run_id}: commit {commit} is not in this clone; `git fetch` it from the repository that it was pushed to"
        )
    if run.tags.get("git.dirty") == "true" and run.patch is None:
        reason = run.tags.get(snapshot.NO_PATCH, "an earlier version of the project recorded the run, and did not keep changes")
        raise RerunError(f"run {run.run_id}: its code was not committed and its changes were not kept: {reason}")
    # Hooks are switched off, because dvc's hook would check out the data that the commit's dvc.lock names.
    _require(*_git(MAIN, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(tree), commit))
    if run.patch:
        patch = tree / ".git-changes"
        patch.write_bytes(run.patch)
        _require(*_git(tree, "apply", "--whitespace=nowarn", patch.name))
        patch.unlink()


def _params(run: RecordedRun, tree: Path) -> None:
    """Restores the profile with the run's number of processes, and links the files that it names outside of git and DVC."""
    file = tree / relative(Paths(run.tags["profile"]).params)
    if run.params is None and not file.is_file():
        raise RerunError(f"run {run.run_id}: its profile {run.tags['profile']!r} was neither committed nor kept with the run")
    text = file.read_text(encoding="utf-8") if run.params is None else run.params.decode()
    if "machine.processes" in run.tags:
        text = re.sub(r"(?m)^(  processes:) auto\b", rf"\1 {run.tags['machine.processes']}", text)
    file.write_text(text, encoding="utf-8")
    if run.studies is not None:
        studies_file(file).write_bytes(run.studies)
    profile = parsed(text)
    paths = (
        (profile["data"].get("folder") or {}).get("root"),
        (profile["train_detection"].get("init") or {}).get("checkpoint"),
        profile["detector"]["backbone"].get("weights"),
    )
    for name in paths:
        if isinstance(name, str) and (MAIN / name).exists() and not (tree / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).symlink_to((MAIN / name).resolve())


def _data(run: RecordedRun, tree: Path) -> None:
    """Restores the data that the run read, by its DVC hashes, from DVC's cache; missing files are pulled from the remote."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo  # DVC takes a second to import
    from dvc_data.hashfile import load
    from dvc_data.hashfile.checkout import checkout
    from dvc_data.hashfile.hash_info import HashInfo

    digests = {tag.removeprefix("dvc."): digest for tag, digest in run.tags.items() if tag.startswith("dvc.")}
    for name in digests:
        if not (tree / name).resolve().is_relative_to(tree.resolve()):
            raise RerunError(f"run {run.run_id}: tag dvc.{name}: expected a path below the project, found a path outside of it")
    with Repo(str(MAIN)) as repo:
        cache = repo.cache.local
        for name, digest in digests.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            if _missing(cache, digest) and (MAIN / name).is_dir() and lineage.folder_hash(MAIN / name) == digest:
                # a stage that was started without dvc has made the folder, so DVC's cache does not have it
                shutil.copytree(MAIN / name, tree / name)
                continue
            try:
                _pull(repo, digest)
            except DvcException as error:  # there is no remote, or it does not answer
                reason = " ".join(str(error).split("\n")[0].split())
                raise RerunError(_missing_message(run, name, digest, f"it could not be pulled from a remote: {reason}")) from None
            if _missing(cache, digest):
                reason = "the remote lacks files of it, too; run `dvc push` where the files exist"
                raise RerunError(_missing_message(run, name, digest, reason))
            content = load(cache, HashInfo("md5", digest))
            checkout(str(tree / name), cache.fs, content, cache, force=True, state=repo.state, quiet=True)


def _missing_message(run: RecordedRun, name: str, digest: str, reason: str) -> str:
    return f"run {run.run_id} read {name} with the DVC hash {digest}, but DVC's cache lacks files of it, and {reason}"


def _pull(repo: Any, digest: str) -> None:
    """Pulls the files of a folder that DVC's cache lacks, as far as the remote has them."""
    from dvc_data.hashfile.hash_info import HashInfo

    before: list[str] = []
    # The first pull gets the folder's list of files, the second one the files.
    while (missing := _missing(repo.cache.local, digest)) and missing != before:
        repo.cloud.pull([HashInfo("md5", file_digest) for file_digest in missing])
        before = missing


def _missing(cache: Any, digest: str) -> list[str]:
    """Returns the hashes that DVC's cache lacks for a folder: that of its list of files, or those of some files."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    if not cache.exists(digest):
        return [digest]
    return [entry.value for _, _, entry in Tree.load(cache, HashInfo("md5", digest)) if not cache.exists(entry.value)]


def _versions(lock: Path) -> dict[str, str]:
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.is_file() else []
    pins = [line.split(" ")[0].partition("==") for line in lines if "==" in line and not line.startswith((" ", "#"))]
    return {name: pin for name, _, pin in pins}


def _git(where: Path, *arguments: str) -> tuple[bool, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    process = subprocess.run(
        ["git", "-C", str(where), *arguments], env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    return process.returncode == 0, " ".join(process.stderr.split())


def _require(succeeded: bool, reason: str) -> None:
    if not succeeded:
        raise RerunError(f"git can't make the work tree: {reason}")
