"""Copies of batches beside the computations of a simulated GPU."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from detr_core.structures import Batch
from detr_core.train.prefetching import copied
from tests.simulated_gpu import CPU, CUDA, SimulatedGpu
from tests.train.test_modules import batch


class Stream:
    """Records what happens to the streams of a GPU."""

    current: Stream

    def __init__(self, device: torch.device, log: list[str]) -> None:
        assert device == CUDA
        self.log = log

    def wait_stream(self, other: Stream) -> None:
        assert other is not self
        self.log.append("wait")


def test_a_batch_is_copied_in_a_stream_of_its_own_for_which_the_computation_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    main = Stream(CUDA, log)
    Stream.current = main

    @contextmanager
    def within(stream: Stream) -> Any:
        Stream.current = stream
        yield
        Stream.current = main

    to = Batch.to

    def noted(self: Batch, device: torch.device) -> Batch:
        log.append("copy beside" if Stream.current is not main else "copy between")
        return to(self, device)

    kept: list[Tensor] = []
    monkeypatch.setattr(Batch, "to", noted)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(device, log))
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: kept.append(tensor) if stream is main else None)
    host = [batch(), batch()]
    with SimulatedGpu() as gpu:
        for moved in copied(host, CUDA):
            log.append("step")
            assert gpu.holds(moved.images)
            assert gpu.holds(moved.padding.mask)
            assert all(gpu.holds(target.labels) and gpu.holds(target.boxes) for target in moved.targets)
    assert log == ["copy beside", "wait", "step"] * 2
    assert len(kept) == 2 * (2 + 2 * 3), "the memory of every tensor is kept for the computation"
    assert gpu.waits.total() == 0


def test_batches_on_a_cpu_are_not_copied() -> None:
    host = [batch(), batch()]
    assert all(ours is theirs for ours, theirs in zip(copied(host, CPU), host, strict=True))
