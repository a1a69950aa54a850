"""An interrupted training continues from its saved state, and its results are the same bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from detr_core.data.splits import read_dataset
from detr_core.distributed import ProcessContext
from detr_core.jobs.train_detection import prepare
from detr_core.jobs.training import TrainingJob
from detr_core.reporter import Silent
from detr_core.train.config import OptimizerConfig, ScheduleConfig
from detr_core.train.interruption import Interrupted
from detr_core.train.optimizer import build_optimizer, build_schedule
from detr_core.train.state import load_state
from flows.runtime import launch
from tests.conftest import ROOT, tiny_settings
from tests.jobs.training_jobs import (
    ALONE,
    ANEW,
    CPU,
    InterruptedAt,
    SignalledAt,
    assert_identical,
    history,
    job,
    job_of,
    weights,
)
from tests.jobs.training_process import carry_out
from tests.kinds import RECIPES
from tests.recording_reporter import RecordingReporter


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_seed_fixes_a_run_bit_for_bit_whatever_interrupts_it(dataset: Path, tmp_path: Path, precision: str) -> None:
    # All that has a state: dropout, augmentation, micro-batches, the optimizer.
    everything: dict[str, Any] = {"dropout": 0.3, "accumulation": 2, "precision": precision}
    carry_out(job(dataset, tmp_path / "whole", **everything), ALONE, Silent())
    interrupted, reporter = job(dataset, tmp_path / "interrupted", **everything), RecordingReporter()
    for step in (1, 3, 6):  # before the first checkpoint, within an epoch, at the last step
        with pytest.raises(KeyboardInterrupt):
            carry_out(interrupted, ALONE, InterruptedAt(step))
    carry_out(interrupted, ALONE, reporter)
    assert reporter.messages == ["resuming after step 4"]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "interrupted")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(tmp_path / "whole") == history(tmp_path / "interrupted")
    assert [{"step": step, **values} for step, values in reporter.history] == [
        {name: value for name, value in record.items() if name != "epoch"} for record in history(tmp_path / "whole")
    ], "told whole, so that a record of the last part has the first too"


def test_a_signal_at_any_step_loses_no_step(dataset: Path, tmp_path: Path) -> None:
    everything: dict[str, Any] = {"dropout": 0.3, "checkpoint_every": 100}
    carry_out(job(dataset, tmp_path / "whole", **everything), ALONE, Silent())
    interrupted, state, reporter = (
        job(dataset, tmp_path / "interrupted", **everything),
        tmp_path / "interrupted/work/state.pt",
        RecordingReporter(),
    )
    for step, number in ((1, signal.SIGINT), (2, signal.SIGTERM), (4, signal.SIGTERM), (5, signal.SIGINT)):
        with pytest.raises(
            Interrupted, match=rf"^interrupted after step {step} of 6; run the same command again"
        ) as interruption:
            carry_out(interrupted, ALONE, SignalledAt(step, number, reporter))
        assert interruption.value.signal == number
        assert torch.load(state, weights_only=True)["progress"]["step"] == step
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "as it was before"
    carry_out(interrupted, ALONE, reporter)
    assert reporter.messages == [f"resuming after step {step}" for step in (1, 2, 4, 5)]
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")


def test_a_signal_during_the_validation_ends_it_at_once_and_loses_no_step(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the validation goes on")

    carry_out(job(dataset, tmp_path / "whole", checkpoint_every=100), ALONE, Silent())
    interrupted, reporter = job(dataset, tmp_path / "interrupted", checkpoint_every=100), RecordingReporter()
    leftover = tmp_path / "interrupted/work/.state.pt.k1ll3d_0.tmp"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"part of a state, whose writer was killed")
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("detr_core.jobs.validation.average_precision_of", signalled)
            with pytest.raises(Interrupted, match=r"^interrupted during the validation after step 3 of 6"):
                carry_out(interrupted, ALONE, reporter)
    carry_out(interrupted, ALONE, reporter)
    assert reporter.messages == ["resuming after step 3"] * 2
    assert not leftover.exists()
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")


def test_two_processes_resume_bit_for_bit_whether_started_by_the_project_or_torchrun(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    everything: dict[str, Any] = {"dropout": 0.3, "accumulation": 2}
    run_by_torchrun(job(dataset, tmp_path / "whole", **everything), tmp_path / "job.json")
    interrupted, reporter = asdict(job(dataset, tmp_path / "interrupted", **everything)), RecordingReporter()
    monkeypatch.setenv("SIGNAL_AT", f"{int(signal.SIGTERM)}:1")  # of 6 steps in 2 epochs; one of two processes gets it
    with pytest.raises(launch.RankProcessError, match=r"^interrupted after step 1 of 6; run the same command again to continue$"):
        launch.run(interrupted, 2, Silent(), module="tests.jobs.training_process")
    monkeypatch.setenv("SIGNAL_AT", f"{int(signal.SIGKILL)}:5")  # the state is of step 4, within the second epoch
    with pytest.raises(launch.RankProcessError, match=r"detection failed: process 1 of 2 \(rank 0\) was killed by signal 9"):
        launch.run(interrupted, 2, reporter, module="tests.jobs.training_process")
    monkeypatch.delenv("SIGNAL_AT")
    launch.run(interrupted, 2, reporter)
    assert reporter.messages == ["resuming after step 1", "resuming after step 4"]
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")


def run_by_torchrun(job: TrainingJob, file: Path) -> None:
    """Runs a job in two processes on this machine, as torchrun starts them."""
    file.write_text(json.dumps(asdict(job)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--rdzv-backend=static", "--master-addr=127.0.0.1", f"--master-port={port}", "--local-addr=127.0.0.1"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        *where,
        "-m",
        f"detr_core.jobs.train_{job.stage}",
        str(file),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", RECIPES)
def test_every_kind_of_detector_resumes_bit_for_bit(kind: str, dataset: Path, tmp_path: Path) -> None:
    carry_out(job_of(kind, dataset, tmp_path / "whole"), ALONE, Silent())
    interrupted, reporter = job_of(kind, dataset, tmp_path / "interrupted"), RecordingReporter()
    with pytest.raises(KeyboardInterrupt):
        carry_out(interrupted, ALONE, InterruptedAt(3))
    carry_out(interrupted, ALONE, reporter)
    assert reporter.messages == ["resuming after step 2"]
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "interrupted")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history(tmp_path / "whole") == history(tmp_path / "interrupted")


def test_a_training_resumes_bit_for_bit_at_a_drop_and_in_the_warm_up(dataset: Path, tmp_path: Path) -> None:
    # Three steps in an epoch. The warm-up ends at the first drop, after which the second follows.
    everything: dict[str, Any] = {"epochs": 3, "checkpoint_every": 1, "schedule": ScheduleConfig("step", 3, (1, 2))}
    carry_out(job(dataset, tmp_path / "whole", **everything), ALONE, Silent())
    interrupted, reporter = job(dataset, tmp_path / "interrupted", **everything), RecordingReporter()
    for step in (2, 4, 7):  # the state is of the step before: in the warm-up, at the first drop, at the second
        with pytest.raises(KeyboardInterrupt):
            carry_out(interrupted, ALONE, InterruptedAt(step))
    carry_out(interrupted, ALONE, reporter)
    assert reporter.messages == ["resuming after step 6"]
    assert_identical(tmp_path / "whole", tmp_path / "interrupted")
    lr = tiny_settings().train_detection.optimizer.lr
    rates = [record["train/lr"] / lr for record in history(tmp_path / "whole") if "train/lr" in record]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01], rel=1e-14)


def test_changed_parameters_restart_the_training_with_a_message(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        carry_out(job(dataset, tmp_path), ALONE, InterruptedAt(3))
    reporter = RecordingReporter()
    optimizer = OptimizerConfig(lr=1e-5, backbone_lr=1e-5, weight_decay=0, clip_norm=1)
    carry_out(job(dataset, tmp_path, optimizer=optimizer), ALONE, reporter)
    assert reporter.messages == [ANEW]


def test_changed_annotations_restart_the_training_with_a_message(dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    with pytest.raises(KeyboardInterrupt):
        carry_out(job(copy, tmp_path), ALONE, InterruptedAt(3))
    file = copy / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][0] += 1  # as many images, objects and classes as before
    file.write_text(json.dumps(content))
    reporter = RecordingReporter()
    carry_out(job(copy, tmp_path), ALONE, reporter)
    assert reporter.messages == [ANEW]


class OneOfTwo(ProcessContext):
    """One of two processes; the second one gets what the first one has sent before."""

    sent: ClassVar[list[Any]] = []

    def from_first(self, value: Any) -> Any:
        if self.first:
            self.sent[:] = [value]
        return self.sent[0]


def test_a_state_of_one_process_resumes_in_two_with_random_numbers_of_their_own(dataset: Path, tmp_path: Path) -> None:
    begun = job(dataset, tmp_path, dropout=0.3)
    with pytest.raises(KeyboardInterrupt):
        carry_out(begun, ALONE, InterruptedAt(3))
    content = torch.load(tmp_path / "work" / "state.pt", weights_only=True)
    drawn: dict[int, list[float]] = {}
    for rank in (0, 1, 0):
        setup = prepare(begun, read_dataset(dataset), ALONE, Silent())
        optimizer = build_optimizer(setup.module, setup.config.optimizer)
        schedule = build_schedule(optimizer, setup.config.schedule, 3, 6)
        process = OneOfTwo(rank, 2, CPU)
        arguments = (tmp_path / "work" / "state.pt", content["fingerprint"], setup.module, optimizer, schedule, process)
        progress, note = load_state(*arguments, seed=7)
        assert progress.step == 2, "the last saved state"
        assert note == (
            "resuming after step 2, with 2 processes instead of 1; dropout draws new random numbers, all else continues exactly"
        )
        loaded = setup.module.state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in content["model"].items())
        numbers = torch.rand(4).tolist()
        assert drawn.setdefault(rank, numbers) == numbers, "the same seed, process and step give the same numbers"
    assert drawn[0] != drawn[1]
