"""Where a run comes from: the git commit, DVC's hashes of what it read, and the Prefect flow run around it; as tags.

Inside of a `dvc repro` DVC's hashes are read from `dvc.lock`, which it has just checked. A stage started by hand may read what no
`dvc.lock` knows: then `folder_hash` says what DVC would call it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from prefect.runtime import flow_run

from flows import pages, server
from flows.paths import ROOT, Paths, relative

NOT_DVCS = (".", ":(exclude,glob)**/dvc.lock", ":(exclude).dvc")  # git's pathspecs for what isn't written by DVC


def tags(paths: Paths, inputs: Iterable[Path]) -> dict[str, str]:
    """All of them: `git.*`, `dvc.<path>` for each of `inputs` that is there, `prefect.*` inside a flow run."""
    known = dvc_hashes(paths.dvc_folder / "dvc.lock") if "DVC_STAGE" in os.environ else {}
    made_from = {
        f"dvc.{relative(folder)}": known.get(relative(folder)) or folder_hash(folder) for folder in inputs if folder.is_dir()
    }
    return git(ROOT) | made_from | prefect()


def git(root: Path) -> dict[str, str]:
    """The commit that is checked out at `root`, and whether files differ from it; nothing where there is no git or no commit.

    dvc.lock doesn't count as a difference, `dvc repro` writes it while the stages run, and DVC's settings don't.
    """
    commit = git_output(root, "rev-parse", "HEAD")
    status = git_output(root, "status", "--porcelain", "--", *NOT_DVCS)
    if commit is None or status is None:
        return {}
    name = commit.decode().strip()
    # The name with a prefix is MLflow's own: its UI shows that one in the runs table.
    return {"git.commit": name, "git.dirty": str(status != b"").lower(), "mlflow.source.git.commit": name}


def dvc_hashes(lock: Path) -> dict[str, str]:
    """Path below the project -> DVC's hash, of all that the stages in this dvc.lock made; empty where there is none."""
    if not lock.is_file():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    outputs = [output for stage in stages.values() for output in stage.get("outs", [])]
    return {output["path"]: output[output["hash"]] for output in outputs if output.get("hash") in output}


def folder_hash(folder: Path) -> str:
    """DVC's hash of a folder as it is now. A file that DVC has seen, unchanged since, is not read again."""
    return str(_seen_by_dvc(folder).hash_info.value)


def file_hashes(folder: Path) -> dict[str, str]:
    """Path below the folder -> DVC's hash, its MD5, of each file as it is now."""
    return {"/".join(key): digest.value for key, _, digest in _seen_by_dvc(folder)}


def _seen_by_dvc(folder: Path) -> Any:
    from dvc.repo import Repo
    from dvc_data.hashfile.build import build

    with Repo(str(ROOT), config={"core": {"no_scm": True}}) as repo:  # where there is no git, too
        cache = repo.cache.local
        return build(cache, str(folder), cache.fs, "md5", dry_run=True)[2]


def prefect() -> dict[str, str]:
    """The Prefect flow run that this is called in: its id, name and address; nothing outside of one."""
    if flow_run.id is None:
        return {}
    # A server that only this run needs has gone when somebody reads the address; `make serve` has its database.
    own = server.ADDRESS.read_text(encoding="utf-8") if server.ADDRESS.is_file() else None
    temporary = own is not None and os.environ.get("PREFECT_API_URL") == own
    page = pages.to_open(pages.flow_run_page(flow_run.id)) if temporary else flow_run.ui_url
    return {"prefect.flow_run.id": flow_run.id, "prefect.flow_run.name": flow_run.name, "prefect.flow_run.url": page}


def git_output(root: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes | None:
    """What git says at `root`, with these variables beside our own; None where it fails or isn't there."""
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
