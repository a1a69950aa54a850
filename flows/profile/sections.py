"""The sections of a profile about what the report shows and which hardware to use. Results depend on them only by rounding."""

from __future__ import annotations

from dataclasses import dataclass, field

from detr_core.config import require, require_between

MOST_PROCESSES = 1_024


@dataclass(frozen=True)
class ReportConfig:
    """The settings of the report. pictures: the number of val images that it shows."""

    pictures: int

    def __post_init__(self) -> None:
        require(self.pictures >= 0, "pictures", "0 or more", self.pictures)


@dataclass(frozen=True)
class MachinesConfig:
    """The machines that carry out each training and evaluation together; the environment variable NODE_RANK numbers them from 0.

    count: their number. address, port: where the first process of machine 0 listens.
    """

    count: int
    address: str
    port: int

    def __post_init__(self) -> None:
        require_between(1, MOST_PROCESSES, "count", self.count)
        require_between(1, 65_535, "port", self.port)


@dataclass(frozen=True)
class ResourcesConfig:
    """The settings that say on which hardware a profile runs.

    Results depend on them only by rounding, which can grow to 0.01 AP in a training.

    gpus: numbers of the GPUs to use; null for all. processes: number of rank processes of a training or an evaluation, or 'auto'.
    workers: number of dataloader workers of each of them, or 'auto' for one on each core that a process has to itself beside its
    own. side_by_side: number of variants of a study that are trained at the same time, each on its share of the GPUs. machines:
    the machines that carry out a training together, if the environment does not say it (`flows/runtime/machines.py`); null for
    this machine alone.
    """

    gpus: tuple[int, ...] | None
    processes: str | int
    workers: str | int
    side_by_side: int
    machines: MachinesConfig | None = field(default=None, metadata={"optional": True})

    def __post_init__(self) -> None:
        gpus = self.gpus
        valid = gpus is None or (len(set(gpus)) == len(gpus) > 0 and min(gpus) >= 0)
        require(valid, "gpus", "different numbers from 0 on, or null", gpus)
        is_count = self.processes == "auto" or (type(self.processes) is int and 1 <= self.processes <= MOST_PROCESSES)
        require(is_count, "processes", f"'auto' or 1 to {MOST_PROCESSES:,}", self.processes)
        is_count = self.workers == "auto" or (type(self.workers) is int and 0 <= self.workers <= MOST_PROCESSES)
        require(is_count, "workers", f"'auto' or 0 to {MOST_PROCESSES:,}", self.workers)
        require_between(1, MOST_PROCESSES, "side_by_side", self.side_by_side)
