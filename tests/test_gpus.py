"""A GPU that can't be used is reported before work begins, and one whose memory runs out with what to change."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from detr_core import gpus
from detr_core.data.batching import collate
from detr_core.distributed import process_group
from detr_core.gpus import GpuError
from detr_core.jobs import events
from tests.tiny_detector import dataset_of, scenes

GIB = 2**30


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Two GPUs of 80 GiB. Returns the free bytes of each, which a test may change."""
    free = {0: 79 * GIB, 1: 79 * GIB}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (free[number], 80 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "Some GPU")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    return free


def test_more_processes_than_gpus_are_refused(two_gpus: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    expected = "expected a GPU for each of 3 processes, found 2; set resources.processes to at most 2, or start torchrun with"
    with pytest.raises(GpuError, match=re.escape(expected)), process_group():
        pass


def test_a_full_gpu_is_refused(two_gpus: dict[int, int]) -> None:
    gpus.require_gpu(1, 2)
    two_gpus[1] = GIB // 2
    expected = "GPU 1 (Some GPU): expected free memory, found 0.5 of 80.0 GiB free, because other processes use it"
    with pytest.raises(GpuError, match=re.escape(expected)):
        gpus.require_gpu(1, 2)


@pytest.mark.parametrize(("device", "maker"), [("/dev/kfd", "AMD"), ("/dev/nvidiactl", "NVIDIA")])
def test_a_build_for_other_gpus_is_refused(device: str, maker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == device or exists(path))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(GpuError, match=f"{device}: expected a build of torch for GPUs of {maker}, found torch"):
        gpus.require_matching_build()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpus.require_matching_build()  # somebody who hides the GPUs wants the CPU


@dataclass
class _Job:
    """A job without content."""


def test_memory_that_runs_out_is_reported_with_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB free.")

    (tmp_path / "job.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["job", str(tmp_path / "job.json")])
    assert events.main(_Job, run) == 1
    event = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("@"))
    assert event["expected"] is True
    assert event["text"].startswith("the memory of the GPU of process 1 (rank 0) ran out: CUDA out of memory; a larger")
    assert all(name in event["text"] for name in ("accumulation", "precision: bfloat16", "batch_size"))


def test_a_batch_is_pinned_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    dataset = dataset_of(scenes(tmp_path), masks=True)
    batch = collate([dataset[0], dataset[1]])
    copy = batch.pin_memory()
    assert len(pinned) == 2 + 2 * 3, "images and padding, and labels, boxes and masks of two images"
    assert torch.equal(copy.images, batch.images)
    assert copy.padding.sizes == batch.padding.sizes
    for ours, theirs in zip(copy.targets, batch.targets, strict=True):
        assert torch.equal(ours.boxes, theirs.boxes)
        assert ours.has_mask is theirs.has_mask
