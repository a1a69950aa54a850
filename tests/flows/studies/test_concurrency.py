"""Variants that are trained at the same time, and studies that wait or are stopped."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from detr_core.reporter import Silent
from flows.profile.paths import Paths, relative
from flows.runtime import launch
from flows.runtime.locks import exclusive
from flows.studies.training import Study, StudyError, shares
from tests.flows.studies.tiny_study import settings
from tests.recording_reporter import RecordingReporter


def test_two_commands_at_once_make_a_variant_once(where: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = [Study("depth", settings(), where) for _ in range(2)]
    reporters = [RecordingReporter(), RecordingReporter()]
    own = studies[0].variants["1-seed0"].paths(where.profile)
    waiting = f"waiting for another thread of this process that is building this result: {relative(own.runs)}"
    train = launch.run

    def train_once_the_other_waits(*arguments: Any, **named: Any) -> None:
        while not any(waiting in reporter.messages for reporter in reporters):
            time.sleep(0.01)
        train(*arguments, **named)

    monkeypatch.setattr(launch, "run", train_once_the_other_waits)
    with ThreadPoolExecutor() as pool:
        futures = [
            pool.submit(study.make, "1-seed0", reporter, "a run") for study, reporter in zip(studies, reporters, strict=True)
        ]
        assert futures[0].result() == futures[1].result()
    first, second = sorted((reporter.messages for reporter in reporters), key=len)
    up_to_date = [
        f"{name}: the result is up to date; settings, data and code are unchanged" for name in ("detection", "evaluation", "cost")
    ]
    assert first == ["the variant begins"]
    assert [*dict.fromkeys(second)] == ["the variant begins", waiting, *up_to_date]


def test_a_waiting_variant_ends_when_its_study_is_stopped(where: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.runtime.locks.SECONDS_BETWEEN_MESSAGES", 0.1)
    study = Study("depth", settings(), where)
    own = study.variants["1-seed0"].paths(where.profile)
    with exclusive(own.runs, tell=Silent().message), ThreadPoolExecutor() as pool:
        waits = pool.submit(study.make, "1-seed0", Silent(), "a run")
        with pytest.raises(TimeoutError):
            waits.result(timeout=1)
        study.stop()
        with pytest.raises(StudyError, match="stopped"):
            waits.result(timeout=10)
    assert not own.runs.exists()


def test_a_study_that_is_stopped_begins_nothing(where: Paths) -> None:
    study = Study("depth", settings(), where)
    study.stop()
    with pytest.raises(StudyError, match="stopped"):
        study.make("0-seed0", Silent(), "a run")
    assert not (where.training_studies / "depth").exists()


def test_variants_trained_at_the_same_time_share_the_gpus_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shares((), 2) == [None, None]
    assert shares((0, 1, 2, 3, 4), 2) == [(0, 2, 4), (1, 3)]
    assert shares((3,), 2) == [(3,), (3,)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert launch._environment(1, (0, 2))["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert launch._environment(1, None)["CUDA_VISIBLE_DEVICES"] == "4,5,6"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert launch._environment(1, (1,))["CUDA_VISIBLE_DEVICES"] == "1"
