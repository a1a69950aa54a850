"""A training gives the same result in one process, in two processes and with micro-batches."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from detr_core.reporter import Silent
from flows.runtime import launch
from tests.conftest import tiny_settings
from tests.jobs.training_jobs import (
    ALONE,
    assert_same_training,
    history,
    job,
    job_of,
    weights,
)
from tests.jobs.training_process import carry_out, float64
from tests.kinds import short_for


@pytest.mark.parametrize("kind", short_for("deformable_two_stage", "faster_rcnn_dc5"))
def test_every_kind_of_detector_trains_alike_in_two_processes_and_in_four_micro_batches(
    kind: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In float64. In float32 four micro-batches of a deformable detector part from one batch by 2e-3: one input of a ReLU is 2e-7
    # here and -1e-6 there, the gradient jumps by half a percent, and AdamW makes whole steps of the backbone's small gradients.
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    monkeypatch.setenv("FLOAT64", "1")
    launch.run(asdict(job_of(kind, dataset, tmp_path / "two")), 2, Silent(), module="tests.jobs.training_process")
    with float64():
        carry_out(job_of(kind, dataset, tmp_path / "one"), ALONE, Silent())
        carry_out(job_of(kind, dataset, tmp_path / "four", accumulation=4), ALONE, Silent())
        for other in ("two", "four"):
            assert_same_training(tmp_path / "one", tmp_path / other, relative=1e-9, weight=1e-9)


@pytest.mark.parametrize(("off", "head"), [(("classification",), "class_embed."), (("l1", "giou"), "bbox_embed.")])
def test_a_head_whose_loss_is_off_stays_as_it_is(dataset: Path, tmp_path: Path, off: tuple[str, ...], head: str) -> None:
    loss = replace(tiny_settings().train_detection.loss, **dict.fromkeys(off, 0.0))
    optimizer = replace(tiny_settings().train_detection.optimizer, weight_decay=0)
    for steps in (1, 3):
        carry_out(job(dataset, tmp_path / str(steps), loss=loss, optimizer=optimizer, steps=steps), ALONE, Silent())
    early, late = weights(tmp_path / "1"), weights(tmp_path / "3")
    heads = {name for name in early if name.startswith(("class_embed.", "bbox_embed."))}
    assert {name for name in heads if torch.equal(early[name], late[name])} == {name for name in heads if name.startswith(head)}


def test_bfloat16_trains_the_same_parameters_as_float32(dataset: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        carry_out(job(dataset, tmp_path / precision, precision=precision), ALONE, Silent())
    losses = [
        [record["train/loss"] for record in history(tmp_path / p) if "train/loss" in record] for p in ("float32", "bfloat16")
    ]
    assert losses[0] != losses[1], "the network did run in another precision"
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert {value.dtype for value in weights(tmp_path / "bfloat16").values()} == {torch.float32}


def test_micro_batches_change_nothing(dataset: Path, tmp_path: Path) -> None:
    carry_out(job(dataset, tmp_path / "one"), ALONE, Silent())
    carry_out(job(dataset, tmp_path / "four", accumulation=4), ALONE, Silent())
    assert_same_training(tmp_path / "one", tmp_path / "four")


def test_two_processes_train_as_one(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STATE", tmp_path / "state")
    carry_out(job(dataset, tmp_path / "one"), ALONE, Silent())
    listening = Listening()
    launch.run(asdict(job(dataset, tmp_path / "two")), 2, listening)
    assert_same_training(tmp_path / "one", tmp_path / "two")
    assert listening.processes >= 2
    assert listening.addresses == {"127.0.0.1"}


class Listening(Silent):
    """Collects the addresses on which this process's children, and theirs, listen while they train."""

    def __init__(self) -> None:
        self.addresses: set[str] = set()
        self.processes = 0

    def metrics(self, values: Any, step: int) -> None:
        children = psutil.Process().children(recursive=True)
        self.processes = max(self.processes, len(children))
        for child in children:
            with suppress(psutil.NoSuchProcess):
                sockets = child.net_connections(kind="inet")
                self.addresses |= {connection.laddr.ip for connection in sockets if connection.status == psutil.CONN_LISTEN}
