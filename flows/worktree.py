"""The project as a run saw it: a git work tree of its commit with its changes, its parameters and the data that it read."""

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
from flows import lineage, origin
from flows.paths import MAIN, SHARED, Paths, relative
from flows.recorded import Recorded
from flows.settings import parsed

LOCK = "requirements.lock"


class AgainError(ExpectedError, RuntimeError):
    """A run that can't be run again. The message says what can't be had, and what would help."""


def folder_of(run: Recorded) -> Path:
    """Where the first work tree of a run is made."""
    return SHARED / "again" / run.run_id


def make(run: Recorded) -> Path:
    """Makes it, and returns its folder. Raises AgainError where code or data can't be had; then nothing is left of it.

    Earlier work trees of the same run stay as they are: they were kept to be looked at, or another command works in them.
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


def _new_folder(wanted: Path) -> Path:
    """Creates the folder `wanted`, or where that exists the first free one of `wanted-2`, `wanted-3` and so on."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("the numbers do not end")


def remove(tree: Path) -> None:
    """Removes a work tree that this command made, as far as there is one."""
    shutil.rmtree(tree, ignore_errors=True)
    _git(MAIN, "worktree", "prune")


def other_packages(tree: Path) -> list[str]:
    """Packages of the tree's requirements.lock of which this checkout has another version: 'torch 2.14 (here 2.15)'."""
    then, now = (_versions(folder / LOCK) for folder in (tree, MAIN))
    return [
        f"{name} {then.get(name, 'not there')} (here {now.get(name, 'not there')})"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _code(run: Recorded, tree: Path) -> None:
    commit = run.tags.get("git.commit")
    if commit is None:
        raise AgainError(f"run {run.run_id}: its commit is not known; it ran where there was no git repository")
    if not _git(MAIN, "cat-file", "-e", f"{commit}^{{commit}}")[0]:
        raise AgainError(
            f"run {run.run_id}: commit {commit} is not in this clone; fetch it from where it was pushed, `git fetch`"
        )
    if run.tags.get("git.dirty") == "true" and run.patch is None:
        why = run.tags.get(origin.NO_PATCH, "the run is older than the keeping of changes")
        raise AgainError(f"run {run.run_id}: its code was not committed and its changes were not kept: {why}")
    # No hooks: dvc's own one would check out what the commit's dvc.lock says.
    _require(*_git(MAIN, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(tree), commit))
    if run.patch:
        patch = tree / ".git-changes"
        patch.write_bytes(run.patch)
        _require(*_git(tree, "apply", "--whitespace=nowarn", patch.name))
        patch.unlink()


def _params(run: Recorded, tree: Path) -> None:
    """The profile as it was, with as many processes as it had; and links to what it names outside of git and DVC."""
    file = tree / relative(Paths(run.tags["profile"]).params)
    if run.params is None and not file.is_file():
        raise AgainError(f"run {run.run_id}: its profile {run.tags['profile']!r} was neither committed nor kept with the run")
    text = file.read_text(encoding="utf-8") if run.params is None else run.params.decode()
    if "machine.processes" in run.tags:
        text = re.sub(r"(?m)^(  processes:) auto\b", rf"\1 {run.tags['machine.processes']}", text)
    file.write_text(text, encoding="utf-8")
    profile = parsed(text)
    named = (
        (profile["data"].get("folder") or {}).get("root"),
        (profile["train_detection"].get("init") or {}).get("checkpoint"),
        profile["detector"]["backbone"].get("weights"),
    )
    for name in named:
        if isinstance(name, str) and (MAIN / name).exists() and not (tree / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).symlink_to((MAIN / name).resolve())


def _data(run: Recorded, tree: Path) -> None:
    """What the run read, by DVC's hashes, linked to DVC's cache as DVC does; what the cache lacks comes from the remote."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo  # a second to import
    from dvc_data.hashfile import load
    from dvc_data.hashfile.checkout import checkout
    from dvc_data.hashfile.hash_info import HashInfo

    read = {tag.removeprefix("dvc."): digest for tag, digest in run.tags.items() if tag.startswith("dvc.")}
    for name in read:
        if not (tree / name).resolve().is_relative_to(tree.resolve()):
            raise AgainError(f"run {run.run_id}: tag dvc.{name}: expected a path below the project, found one that leaves it")
    with Repo(str(MAIN)) as repo:
        cache = repo.cache.local
        for name, digest in read.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            if _missing(cache, digest) and (MAIN / name).is_dir() and lineage.folder_hash(MAIN / name) == digest:
                shutil.copytree(MAIN / name, tree / name)  # made by hand, and not yet known to DVC
                continue
            try:
                _pull(repo, digest)
            except DvcException as error:  # no remote, or none that answers
                why = " ".join(str(error).split("\n")[0].split())
                raise AgainError(_lacking(run, name, digest, f"no remote gives it: {why}")) from None
            if _missing(cache, digest):
                raise AgainError(_lacking(run, name, digest, "the remote hasn't all of it either; was it pushed, `dvc push`?"))
            content = load(cache, HashInfo("md5", digest))
            checkout(str(tree / name), cache.fs, content, cache, force=True, state=repo.state, quiet=True)


def _lacking(run: Recorded, name: str, digest: str, why: str) -> str:
    return f"run {run.run_id} read {name} as it was under DVC's hash {digest}; DVC's cache hasn't all of it, and {why}"


def _pull(repo: Any, digest: str) -> None:
    """Brings what DVC's cache lacks of a folder from the remote, as far as that has it."""
    from dvc_data.hashfile.hash_info import HashInfo

    before: list[str] = []
    # Twice: what a folder holds is known when its list is there.
    while (missing := _missing(repo.cache.local, digest)) and missing != before:
        repo.cloud.pull([HashInfo("md5", each) for each in missing])
        before = missing


def _missing(cache: Any, digest: str) -> list[str]:
    """What DVC's cache lacks of a folder: its list of files, or some of them."""
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
    done = subprocess.run(
        ["git", "-C", str(where), *arguments], env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    return done.returncode == 0, " ".join(done.stderr.split())


def _require(well: bool, said: str) -> None:
    if not well:
        raise AgainError(f"git can't make the work tree: {said}")
