"""Connects the processes that train or evaluate together, whether the project or torchrun started them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import distributed as dist

from detr_core.gpus import require_gpu, require_matching_build


@dataclass(frozen=True)
class ProcessContext:
    """This process's place in the group of processes that train or evaluate together."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process (rank 0) that writes files and reports progress."""
        return self.rank == 0

    def total(self, values: list[float]) -> list[float]:
        """Returns the sum of `values` over all processes, element by element."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)  # on the CPU, so that the host need not wait for the GPU
        dist.all_reduce(tensor)
        summed: list[float] = tensor.tolist()
        return summed

    def from_first(self, value: Any) -> Any:
        """Returns the `value` of the first process. Other processes may pass None."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def to_first(self, value: Any) -> list[Any]:
        """Returns the `value` of every process, in the order of ranks, in the first process, and an empty list in the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(value, values, dst=0)
        return values or []

    def gather(self, value: Any) -> list[Any]:
        """Returns the `value` of every process, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Returns when every process of the group has called this method."""
        if self.size > 1:
            dist.barrier()


def single_process(device: torch.device) -> ProcessContext:
    """Returns the group of a process that works alone."""
    compute_float32("ieee", device)
    return ProcessContext(0, 1, device)


STORE_FILE = "DETR_STORE_FILE"  # environment variable: the file through which processes of a machine connect


@contextmanager
def process_group() -> Iterator[ProcessContext]:
    """Joins this process to the others of its training or evaluation.

    NCCL connects GPUs, and gloo connects CPUs. With GPUs, too, plain values travel through gloo, because NCCL would copy them to
    the GPU and back, for which the host would wait.

    RANK, WORLD_SIZE and LOCAL_RANK in the environment say which process this is; without them the process works alone.
    The processes find each other through the file that DETR_STORE_FILE names. Where that is not set, they do so through the
    server at MASTER_ADDR and MASTER_PORT, as torchrun intends; that server listens on all network interfaces.
    Raises GpuError if this process can't use its GPU.
    """
    rank, size, local = (int(os.environ.get(name, default)) for name, default in _RANK)
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    on_gpu = device.type == "cuda"
    if on_gpu:
        require_gpu(local, int(os.environ.get("LOCAL_WORLD_SIZE", size)))
        torch.cuda.set_device(device)
        compute_float32("ieee", device)
    else:
        require_matching_build()
    if size > 1:
        store = os.environ.get(STORE_FILE)
        where = "env://" if store is None else Path(store).as_uri()
        backend, bound = ("cpu:gloo,cuda:nccl", device) if on_gpu else ("gloo", None)
        dist.init_process_group(backend, where, rank=rank, world_size=size, device_id=bound)
    try:
        yield ProcessContext(rank, size, device)
    finally:
        if size > 1:
            dist.destroy_process_group()


def compute_float32(how: Literal["ieee", "tf32"], device: torch.device) -> None:
    """Sets how a GPU multiplies matrices and convolves in float32: exactly, or in TF32, with 10 bits of each input's fraction.

    torch's own default is TF32 for convolutions and exact matrix products. It has no effect on a CPU.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = how
        torch.backends.cudnn.conv.fp32_precision = how  # type: ignore[attr-defined]


_RANK = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
