"""The rank processes of a training: their messages arrive, and none outlives its starter. Here they train nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from detr_core.config import ConfigError
from flows.profile.sections import ResourcesConfig
from flows.runtime import launch
from flows.runtime.launch import Hardware, RankProcessError, process_count, run, stop_all
from tests.child_processes import has_ended, wait_for
from tests.recording_reporter import RecordingReporter

TOY_JOB = """
import json, os, psutil, signal, sys, time
job = json.load(open(sys.argv[1]))
rank = int(os.environ["RANK"])
open(job["work"] + "/pid." + str(rank), "w").write(str(os.getpid()))
if rank == 0 and not job.get("quiet"):
    print("@" + json.dumps({"kind": "progress", "done": 3, "total": 9, "images_per_second": 5.0, "note": "loss 1.5"}))
    print("@" + json.dumps({"kind": "metrics", "step": 3, "values": {"val/AP": 0.25}}))
    print("@" + json.dumps({"kind": "message", "text": "threads " + os.environ["OMP_NUM_THREADS"]}))
    print("@ not an event")
if job["then"] == "error":
    print("@" + json.dumps({"kind": "error", "text": "the loss is not finite"}))
    sys.exit(1)
if job["then"] == "raise":
    raise RuntimeError("out of luck")
if job["then"] == "sleep":
    time.sleep(100)
if job["then"] in ("save", "stay"):
    def save(number, frame):
        if job["then"] == "save":
            print("@" + json.dumps({"kind": "error", "time": time.time(), "text": "interrupted after step 7"}))
            sys.exit(128 + number)
    signal.signal(signal.SIGTERM, save)
    print("@" + json.dumps({"kind": "message", "text": "ready"}))
    while True:
        time.sleep(0.1)
if job["then"] == "exit":
    sys.exit(3)
if job["then"] == "error of both":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the later failure arrives first
    open(job["work"] + f"/ready.{rank}", "w").close()
    while not os.path.exists(job["work"] + f"/ready.{1 - rank}"):
        time.sleep(0.05)
    time.sleep(0.3 * rank)
    print("@" + json.dumps({"kind": "error", "time": 2 - rank, "text": f"rank {rank} was {'first' if rank else 'last'}"}))
    sys.exit(1)
if job["then"] == "raise in rank 1":
    if rank == 0:
        time.sleep(100)
    raise RuntimeError("out of luck")
if job["then"] == "fail with the other":
    other = job["work"] + "/pid.1"
    while rank == 1 or not os.path.exists(other) or not open(other).read() or psutil.pid_exists(int(open(other).read())):
        time.sleep(0.05)
    print("@" + json.dumps({"kind": "error", "time": time.time(), "expected": False, "text": "RuntimeError: connection lost"}))
    sys.exit(1)
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Returns a job for the toy job module that the tests of this module run."""
    (tmp_path / "toy_job.py").write_text(TOY_JOB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("flows.runtime.launch.STATE", tmp_path)
    return {"stage": "detection", "profile": "toy", "work": str(tmp_path), "then": "end"}


def pid_of(folder: Path, rank: int) -> int | None:
    file = folder / f"pid.{rank}"
    return int(file.read_text()) if file.exists() and file.read_text() else None


def test_events_of_the_first_of_two_processes_arrive_and_nothing_stays(
    job: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter, temporary = RecordingReporter(), tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    run(job, 2, reporter, module="toy_job")
    assert list(temporary.iterdir()) == []
    assert reporter.last_progress == (3, 9)
    assert reporter.history == [(3, {"val/AP": 0.25})]
    cores = len(os.sched_getaffinity(0))
    assert reporter.messages == [f"threads {max(1, cores // 2)}"]
    assert (tmp_path / "pid.1").exists()
    assert "@ not an event" in (tmp_path / "log" / "toy-detection.log").read_text()


def test_jobs_that_run_side_by_side_share_the_cores(job: dict[str, object]) -> None:
    reporter = RecordingReporter()
    run(job, 1, reporter, module="toy_job", hardware=Hardware(side_by_side=2))
    assert reporter.messages == [f"threads {max(1, len(os.sched_getaffinity(0)) // 2)}"]


def test_the_error_that_a_rank_process_reports_is_raised(job: dict[str, object]) -> None:
    with pytest.raises(RankProcessError, match=r"^the loss is not finite$"):
        run(job | {"then": "error"}, 1, RecordingReporter(), module="toy_job")


def test_an_unexpected_error_of_a_rank_process_names_itself_and_the_log(job: dict[str, object]) -> None:
    with pytest.raises(RankProcessError, match=r"RuntimeError: out of luck; its log is .*toy-detection\.log$"):
        run(job | {"then": "raise"}, 1, RecordingReporter(), module="toy_job")


KILLED = [(9, r"9 \(SIGKILL\), perhaps because the memory ran out"), (11, r"11 \(SIGSEGV\)")]


@pytest.mark.parametrize(("number", "message"), KILLED)
def test_of_two_processes_the_one_that_a_signal_killed_is_named(
    job: dict[str, object], tmp_path: Path, number: int, message: str
) -> None:
    def kill() -> None:
        if wait_for(lambda: None not in (pid_of(tmp_path, 0), pid_of(tmp_path, 1))):
            os.kill(pid_of(tmp_path, 1) or 0, number)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RankProcessError, match=rf"process 2 of 2 \(rank 1\) was killed by signal {message}; its log is .*\.log$"):
        run(job | {"then": "fail with the other"}, 2, RecordingReporter(), module="toy_job")
    killer.join()
    assert all(has_ended(pid_of(tmp_path, rank) or 0) for rank in (0, 1))


def test_of_two_processes_that_fail_the_first_one_is_the_cause(job: dict[str, object]) -> None:
    with pytest.raises(RankProcessError, match=r"^rank 1 was first$"):
        run(job | {"then": "error of both"}, 2, RecordingReporter(), module="toy_job")


def test_a_traceback_in_any_process_is_the_cause(job: dict[str, object]) -> None:
    message = r"process 2 of 2 \(rank 1\) ended with exit code 1: RuntimeError: out of luck; its log is"
    with pytest.raises(RankProcessError, match=message):
        run(job | {"then": "raise in rank 1"}, 2, RecordingReporter(), module="toy_job")


def test_a_process_that_fails_without_output_is_reported(job: dict[str, object]) -> None:
    with pytest.raises(
        RankProcessError, match="detection failed: its process ended with exit code 3: it printed nothing; its log"
    ):
        run(job | {"then": "exit", "quiet": True}, 1, RecordingReporter(), module="toy_job")


def test_another_thread_can_end_what_runs(job: dict[str, object], tmp_path: Path) -> None:
    def end() -> None:
        if wait_for(lambda: (tmp_path / "pid.0").exists() and (tmp_path / "pid.0").read_text() != ""):
            stop_all()

    ender = threading.Thread(target=end)
    ender.start()
    with pytest.raises(RankProcessError, match=r"its log is .*toy-depth-2-seed0-detection\.log$"):
        run(job | {"then": "sleep"}, 1, RecordingReporter(), module="toy_job", variant="depth/2-seed0")
    ender.join()
    assert wait_for(lambda: has_ended(int((tmp_path / "pid.0").read_text())))


class Impatient(RecordingReporter):
    """Interrupts the stage, as ctrl-c does, once its processes are ready."""

    def message(self, text: str) -> None:
        super().message(text)
        if text == "ready":
            raise KeyboardInterrupt


def test_processes_of_an_interrupted_stage_save_their_state_and_say_how_far_they_came(
    job: dict[str, object], tmp_path: Path
) -> None:
    reporter = Impatient()
    with pytest.raises(KeyboardInterrupt):
        run(job | {"then": "save"}, 2, reporter, module="toy_job")
    assert reporter.messages[-1] == "interrupted after step 7"
    assert all(has_ended(pid_of(tmp_path, rank) or 0) for rank in (0, 1))


def test_processes_that_do_not_end_when_asked_are_ended_by_force(
    job: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.runtime.launch.SECONDS_TO_SAVE", 0.5)
    reporter = Impatient()
    with pytest.raises(KeyboardInterrupt):
        run(job | {"then": "stay"}, 1, reporter, module="toy_job")
    assert "ended by force" in reporter.messages[-1]
    assert has_ended(pid_of(tmp_path, 0) or 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_one_that_trains(job: dict[str, object], tmp_path: Path, number: signal.Signals) -> None:
    code = (
        "from detr_core.reporter import Silent; from flows.runtime import launch; import pathlib;"
        f"launch.STATE = pathlib.Path({str(tmp_path)!r}); launch.run({job | {'then': 'sleep'}!r}, 1, Silent(), 'toy_job')"
    )
    stage = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    pid = tmp_path / "pid.0"
    assert wait_for(lambda: pid.exists() and pid.read_text() != "")
    stage.send_signal(number)
    assert stage.wait(30) != 0
    assert wait_for(lambda: has_ended(int(pid.read_text())))


def test_a_profile_says_how_many_processes() -> None:
    assert process_count(ResourcesConfig(gpus=None, processes=3, workers=0, side_by_side=1)) == 3
    assert process_count(ResourcesConfig(gpus=None, processes="auto", workers=0, side_by_side=1)) >= 1


@pytest.mark.parametrize(
    ("workers", "cores", "processes", "expected"),
    [
        ("auto", 128, 8, 15),
        ("auto", 256, 8, 16),
        ("auto", 26, 1, 16),
        ("auto", 8, 1, 7),
        ("auto", 2, 2, 1),
        (0, 64, 1, 0),
        (5, 2, 2, 5),
    ],
)
def test_dataloader_workers_follow_from_the_cores(
    workers: str | int, cores: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "cores", lambda: cores)
    resources = ResourcesConfig(gpus=None, processes=processes, workers=workers, side_by_side=1)
    assert launch.worker_count(resources, processes) == expected


@pytest.mark.parametrize("workers", ["all", -1, True, 2000])
def test_another_number_of_dataloader_workers_is_refused(workers: str | int) -> None:
    with pytest.raises(ConfigError, match="workers: expected 'auto' or 0 to 1,024, found"):
        ResourcesConfig(gpus=None, processes=1, workers=workers, side_by_side=1)
