"""Simultaneous commands: a command waits for another one that builds the same result, and says so, but not for a dead one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from detr_core import directories
from flows.profile import paths
from flows.profile.paths import Paths
from flows.runtime.locks import exclusive
from tests.child_processes import first_line
from tests.conftest import ROOT
from tests.recording_reporter import RecordingReporter

# A stage of the tiny profile in the project argv[1]; it says when its work is under way, and goes on when stdin ends.
STAGE = """
import importlib, sys
from pathlib import Path
from detr_core.reporter import Silent
from flows.runtime import launch; from flows.profile import paths
from tests.conftest import tiny_settings

paths.ROOT = Path(sys.argv[1])
for module in (paths, launch):
    module.STATE = paths.ROOT / ".state"
under_way = False

class Told(Silent):
    def progress(self, done, total, images_per_second, note):
        global under_way
        if not under_way:
            under_way = True
            print("under way", flush=True)
            sys.stdin.read()
    def message(self, text):
        print(text, flush=True)

stage = importlib.import_module(f"flows.{sys.argv[2]}")
metrics = stage.run(tiny_settings(), paths.Paths("tiny"), Told())
print(sorted(metrics.items()), flush=True)
"""


def begun(project: Path, stage: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", STAGE, str(project), stage]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_make_the_data_of_a_profile_one_after_the_other(tmp_path: Path) -> None:
    first = begun(tmp_path, "data")
    assert first_line(first) == "under way"
    second = begun(tmp_path, "data")
    waiting = f"waiting for another process (pid {first.pid}) that is building this result"
    assert first_line(second) == f"{waiting}: data/tiny", "and nothing of its own before"
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert outputs[0][-1] == outputs[1][-1] == "[('train/images', 24.0), ('val/images', 6.0)]"
    assert outputs[1][-2] == "under way", "it has built its own in turn"
    directories.require_replaceable(tmp_path / "data" / "tiny")
    assert len(list((tmp_path / "data" / "tiny" / "train").iterdir())) == 24
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["tiny"]


def test_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    killed = begun(tmp_path, "data")
    assert first_line(killed) == "under way"
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    second = begun(tmp_path, "data")
    lines = second.communicate(timeout=120)[0].splitlines()
    assert lines == ["under way", "[('train/images', 24.0), ('val/images', 6.0)]"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["tiny"], "what the killed one left is gone"


@pytest.mark.long
def test_two_trainings_of_a_profile_train_one_after_the_other(tmp_path: Path) -> None:
    for stage in ("data", "check"):
        assert begun(tmp_path, stage).communicate(timeout=300)[0]
    first = begun(tmp_path, "train_detection")
    assert first_line(first) == "under way"
    second = begun(tmp_path, "train_detection")
    assert (
        first_line(second) == f"waiting for another process (pid {first.pid}) that is building this result: runs/tiny/detection"
    )
    outputs = [process.communicate(timeout=600)[0].splitlines() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0]
    assert not any("resuming" in line for lines in outputs for line in lines)
    directories.require_replaceable(tmp_path / "runs" / "tiny" / "detection")
    assert not (tmp_path / ".state/unfinished/tiny/train_detection").exists()


def test_a_thread_may_take_a_lock_again_and_another_thread_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "STATE", tmp_path / ".state")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    result, order, reporter, held = Paths("x").data, list[str](), RecordingReporter(), threading.Event()

    def other() -> None:
        held.wait()
        with exclusive(Paths("x").report, result, tell=reporter.message):
            order.append("other")

    thread = threading.Thread(target=other)
    thread.start()
    with exclusive(result, tell=pytest.fail), exclusive(result, Paths("x").check, tell=pytest.fail):
        held.set()
        while not reporter.messages:
            thread.join(timeout=0.05)
        order.append("this")
    thread.join()
    assert order == ["this", "other"]
    assert reporter.messages[0] == "waiting for another thread of this process that is building this result: data/x"
