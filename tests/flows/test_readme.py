"""The commands and the code in the README work as printed and leave no files behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.profile.paths import ROOT
from tests.flows.conftest import git


def files(project: Path) -> set[str]:
    listed = git(project, "ls-files", "--others", "--cached", "-z", "--", ".", ":(exclude)**/__pycache__/**")
    return {name for name in listed.split("\0") if "__pycache__" not in name and not name.startswith(".dvc/")}


@pytest.mark.timeout(600)
def test_the_model_predicts_as_printed(smoke: Path, environment: dict[str, str]) -> None:
    (snippet,) = re.findall(r"```python\n(import mlflow\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    before = files(smoke)
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=smoke, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^\w+ 0\.\d+ \[", done.stdout, re.MULTILINE), done.stdout
    assert files(smoke) == before
