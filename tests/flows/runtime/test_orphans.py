"""Processes whose starter is killed: a stage ends in order after its dvc, and a guarded module ends with all its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.profile.paths import ROOT
from flows.runtime.child_process import guarded
from tests.child_processes import has_ended, wait_for

# As dvc does: a command in a shell, with a variable. The shell has more to do afterwards, so it stays between the two.
DVC = """
import os, subprocess, sys
subprocess.run(["sh", "-c", sys.argv[1]], env=os.environ | {"DVC_STAGE": "data"})
"""
STAGE = """
import flows, os, pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path("asked").touch())
pathlib.Path("begun").write_text(str(os.getpid()))
time.sleep(100)
time.sleep(100)
"""
# It starts a process that knows nothing of it, in a session of its own.
PARENT = """
import pathlib, subprocess, time
child = subprocess.Popen(["sleep", "100"], start_new_session=True)
pathlib.Path("begun").write_text(str(child.pid))
time.sleep(100)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a working directory with the scripts above, in which the project's modules can be imported."""
    for name, text in {"dvc": DVC, "stage.py": STAGE, "parent.py": PARENT}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("DVC_STAGE", "DETR_STAGE_PID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_a_stage_is_asked_to_end_when_its_dvc_is_killed_and_is_killed_when_it_does_not(folder: Path) -> None:
    dvc = subprocess.Popen([sys.executable, "dvc", f"{sys.executable} stage.py; true"])
    assert wait_for(lambda: text(folder / "begun") != "")
    dvc.kill()
    dvc.wait()
    assert wait_for((folder / "asked").exists, 3)
    assert wait_for(lambda: has_ended(int(text(folder / "begun"))), 10)


def test_a_stage_whose_dvc_was_killed_before_it_looked_does_not_begin(folder: Path) -> None:
    command = f"echo $$ > shell; until [ -e killed ]; do sleep 0.05; done; {sys.executable} stage.py 2> said; true"
    dvc = subprocess.Popen([sys.executable, "dvc", command])
    assert wait_for(lambda: text(folder / "shell") != "")
    dvc.kill()
    dvc.wait()
    (folder / "killed").touch()
    assert wait_for(lambda: has_ended(int(text(folder / "shell"))))
    assert (folder / "said").read_text() == "error: the dvc that started this stage has ended; run the command again\n"
    assert not (folder / "begun").exists()


@pytest.mark.parametrize("killed", ["guard", "module", "starter"])
def test_a_guarded_module_and_what_it_started_end_together(folder: Path, killed: str) -> None:
    code = "import subprocess, sys; from flows.runtime.child_process import guarded; subprocess.run(guarded('parent'))"
    starter = subprocess.Popen([sys.executable, "-c", code])
    assert wait_for(lambda: text(folder / "begun") != "")
    guard = psutil.Process(starter.pid).children()[0]
    module = guard.children()[0]
    if killed == "guard":
        guard.terminate()
    elif killed == "module":
        module.kill()
    else:
        starter.kill()
    processes = [guard.pid, module.pid, int(text(folder / "begun"))]
    assert wait_for(lambda: all(has_ended(pid) for pid in processes), 10)
    starter.wait(10)


def test_an_attached_process_that_another_has_inherited_ends_at_once(folder: Path) -> None:
    command = [word.replace(f"--parent={os.getpid()}", "--parent=1") for word in guarded("parent")]
    for module in ("flows.runtime.guard", "flows.runtime.child_process"):
        command[2] = module
        assert subprocess.run(command, check=False, timeout=60).returncode == 1
    assert not (folder / "begun").exists()
