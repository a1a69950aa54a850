"""Finds out before work begins whether a GPU can be used, and says what to do when its memory runs out."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from detr_core.errors import ExpectedError

LEAST_FREE = 0.1  # share of a GPU's memory; with less than this no training fits


class GpuError(ExpectedError, RuntimeError):
    """A GPU can't be used, or its memory is too small. The message names the GPU and says what to change."""


def require_gpu(number: int, processes: int) -> None:
    """Raises GpuError if this process's GPU does not exist, can't be used by this build of torch, or is full.

    number: of the GPU, among those that this process sees. processes: the number of processes on this machine, one for each GPU.
    """
    count = torch.cuda.device_count()
    if number >= count:
        raise GpuError(
            f"expected a GPU for each of {processes} processes, found {count}; set resources.processes to at most {count}, or "
            f"start torchrun with --nproc-per-node {count}"
        )
    free, total = torch.cuda.mem_get_info(number)
    if free < LEAST_FREE * total:
        raise GpuError(
            f"GPU {number} ({torch.cuda.get_device_name(number)}): expected free memory, found {_gib(free)} of {_gib(total)} GiB "
            "free, because other processes use it; end them, or name other GPUs in resources.gpus"
        )


def require_matching_build() -> None:
    """Raises GpuError if this machine has a GPU of a maker that this build of torch does not support.

    Without this error a training would run on the CPU, a hundred times as slowly as on the GPU.
    """
    if torch.cuda.is_available() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return
    for device, maker, built_for in (
        (Path("/dev/kfd"), "AMD", torch.version.hip),
        (Path("/dev/nvidiactl"), "NVIDIA", torch.version.cuda),
    ):
        if device.exists() and built_for is None:
            raise GpuError(
                f"{device}: expected a build of torch for GPUs of {maker}, found torch {torch.__version__}; "
                "install such a build, or set CUDA_VISIBLE_DEVICES to an empty text to use the CPU"
            )


def out_of_memory(error: torch.OutOfMemoryError, rank: int) -> GpuError:
    """Returns the error for a process whose GPU has no memory left, with the settings that need less."""
    first_sentence = str(error).split(". ")[0]
    return GpuError(
        f"the memory of the GPU of process {rank + 1} (rank {rank}) ran out: {first_sentence}; a larger `accumulation` computes "
        "fewer images at once with the same result, `precision: bfloat16` needs less memory, and so do a smaller `batch_size` or "
        "`resize`"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"
