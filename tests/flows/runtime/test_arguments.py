"""Help, wrong arguments and invalid profiles are handled before slow imports."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from flows.profile.paths import ROOT
from flows.runtime.arguments import _COMMANDS

WITH_PROFILE = ["data", "check", "train_detection", "train_panoptic", "evaluate", "ablations", "report", "pipeline"]
# Runs a command as `python -m` does, and says at its end what it has imported.
SPY = """
import atexit, sys, runpy
heavy = {"prefect", "mlflow", "torch", "numpy", "rich", "matplotlib"}
atexit.register(lambda: print("imported", sorted(heavy & set(sys.modules))))
module = sys.argv[1]
del sys.argv[0]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def said(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", SPY, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("command", _COMMANDS)
def test_help_imports_nothing_that_takes_seconds(command: str) -> None:
    code, text = said(f"flows.{command}", "--help")
    assert code == 0, text
    assert text.startswith(f"usage: python -m flows.{command}")
    assert "imported []" in text


@pytest.mark.parametrize("command", WITH_PROFILE)
def test_a_wrong_profile_is_reported_at_once(command: str) -> None:
    begun = time.monotonic()
    code, text = said(f"flows.{command}", "--profile", "smokee")
    assert code == 1
    assert "error: profile 'smokee': there is no params/smokee.yaml; did you mean 'smoke'?" in text
    assert "imported []" in text
    assert time.monotonic() - begun < 15  # seconds; a quarter of one where nothing else runs


def test_a_wrong_study_is_reported_at_once() -> None:
    code, text = said("flows.ablations", "decodernms", "--profile", "smoke")
    assert code == 1
    assert "error: study 'decodernms': profile 'smoke' has no such study; did you mean 'decoder-nms'?" in text
    assert "imported []" in text
