"""Collects the origin of a run as tags: the git commit, the DVC hashes of its inputs, and its Prefect flow run.

In a `dvc repro` the DVC hashes are read from `dvc.lock`, which dvc has just checked. A stage that is started without dvc may read
inputs that are not in `dvc.lock`: then `folder_hash` computes the hash that DVC would give them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.runtime import flow_run

from flows.profile.paths import ROOT, Paths, relative
from flows.runtime import server
from flows.tracking import ui_addresses

NOT_DVCS = (".", ":(exclude,glob)**/dvc.lock", ":(exclude).dvc")  # git's pathspecs for all files that DVC doesn't write


def tags(paths: Paths, inputs: Iterable[Path]) -> dict[str, str]:
    """Returns the tags `git.*`, `dvc.<path>` for each of `inputs` that exists, and, inside a flow run, `prefect.*`."""
    recorded_hashes = dvc_hashes(paths.dvc_folder / "dvc.lock") if "DVC_STAGE" in os.environ else {}
    build_digests = {
        f"dvc.{relative(folder)}": recorded_hashes.get(relative(folder)) or folder_hash(folder)
        for folder in inputs
        if folder.is_dir()
    }
    return git(ROOT) | build_digests | prefect()


def git(root: Path) -> dict[str, str]:
    """Returns the commit that is checked out at `root`, and whether files differ from it; nothing without git or a commit.

    Changes of DVC's settings and of dvc.lock, which `dvc repro` writes while the stages run, are ignored.
    """
    commit = git_output(root, "rev-parse", "HEAD")
    status = git_output(root, "status", "--porcelain", "--", *NOT_DVCS)
    if commit is None or status is None:
        return {}
    name = commit.decode().strip()
    # MLflow's UI shows its own tag, `mlflow.source.git.commit`, in the table of runs.
    return {"git.commit": name, "git.dirty": str(status != b"").lower(), "mlflow.source.git.commit": name}


def dvc_hashes(lock: Path) -> dict[str, str]:
    """Maps the path of each output in this dvc.lock, relative to the project, to its DVC hash; empty without the file."""
    if not lock.is_file():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    outputs = [output for stage in stages.values() for output in stage.get("outs", [])]
    return {output["path"]: output[output["hash"]] for output in outputs if output.get("hash") in output}


def folder_hash(folder: Path) -> str:
    """Returns the DVC hash of a folder as it is now. Files that are unchanged since DVC last read them are not read again."""
    return str(_seen_by_dvc(folder).hash_info.value)


def file_hashes(folder: Path) -> dict[str, str]:
    """Maps the path of each file in the folder, relative to it, to the file's DVC hash, an MD5."""
    return {"/".join(key): digest.value for key, _, digest in _seen_by_dvc(folder)}


def _seen_by_dvc(folder: Path) -> Any:
    from dvc.repo import Repo
    from dvc_data.hashfile.build import build

    with Repo(str(ROOT), config={"core": {"no_scm": True}}) as repo:  # this works without a git repository, too
        cache = repo.cache.local
        return build(cache, str(folder), cache.fs, "md5", dry_run=True)[2]


def prefect() -> dict[str, str]:
    """Returns the id, name and address of the current Prefect flow run as tags; no tags outside of a flow run."""
    if flow_run.id is None:
        return {}
    # The project's own server ends with the run. Later, `make serve` shows the run, because it uses the same database.
    own_address = server.ADDRESS.read_text(encoding="utf-8") if server.ADDRESS.is_file() else None
    temporary = own_address is not None and os.environ.get("PREFECT_API_URL") == own_address
    page = ui_addresses.to_open(ui_addresses.flow_run_page(flow_run.id)) if temporary else flow_run.ui_url
    return {"prefect.flow_run.id": flow_run.id, "prefect.flow_run.name": flow_run.name, "prefect.flow_run.url": page}


def git_output(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes | None:
    """Runs git at `root`, with additional environment variables, and returns its output; None if git fails or is missing."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=os.environ | (environment or {}),
            capture_output=True,
            check=True,
            timeout=60,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout
