"""Where a run comes from: the git commit, DVC's hashes of what it read, and the Prefect flow run around it; as tags.

DVC's hashes are read from `dvc.lock`, so they are those of the last `dvc repro` or `dvc commit`. What a stage has just made is
not there yet: `folder_hash` says what DVC will call it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import yaml
from prefect.runtime import flow_run

from flows.paths import ROOT, Paths, relative


def tags(paths: Paths, inputs: Iterable[Path]) -> dict[str, str]:
    """All of them: `git.*`, `dvc.<path>` for each of `inputs` that dvc.lock knows, `prefect.*` inside a flow run."""
    hashes = dvc_hashes(paths.dvc_folder / "dvc.lock")
    made_from = {f"dvc.{name}": hashes[name] for name in map(relative, inputs) if name in hashes}
    return git(ROOT) | made_from | prefect()


def git(root: Path) -> dict[str, str]:
    """The commit that is checked out at `root`, and whether files differ from it; nothing where there is no git or no commit.

    dvc.lock doesn't count as a difference: `dvc repro` writes it while the stages run.
    """
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--", ".", ":(exclude,glob)**/dvc.lock")
    if commit is None or status is None:
        return {}
    # The name with a prefix is MLflow's own: its UI shows that one in the runs table.
    return {"git.commit": commit, "git.dirty": str(status != "").lower(), "mlflow.source.git.commit": commit}


def dvc_hashes(lock: Path) -> dict[str, str]:
    """Path below the project -> DVC's hash, of all that the stages in this dvc.lock made; empty where there is none."""
    if not lock.is_file():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    outputs = [output for stage in stages.values() for output in stage.get("outs", [])]
    return {output["path"]: output[output["hash"]] for output in outputs if output.get("hash") in output}


def folder_hash(folder: Path) -> str:
    """DVC's hash of a folder as it is now: MD5 of a list of its files, each with the MD5 of its own."""
    entries = []
    for file in filter(Path.is_file, folder.rglob("*")):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        entries.append({"md5": digest, "relpath": file.relative_to(folder).as_posix()})
    listed = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return f"{hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest()}.dir"


def prefect() -> dict[str, str]:
    """The Prefect flow run that this is called in: its id, name and address; nothing outside of one."""
    if flow_run.id is None:
        return {}
    return {"prefect.flow_run.id": flow_run.id, "prefect.flow_run.name": flow_run.name, "prefect.flow_run.url": flow_run.ui_url}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
