"""Executes one step of a training: computes the loss of a batch and its gradient, and updates the weights."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detr_core.distributed import ProcessContext
from detr_core.loss.matcher import NonFiniteError
from detr_core.structures import Batch
from detr_core.train.host_copy import HostCopy
from detr_core.train.interruption import Interrupted, StopRequest
from detr_core.train.modules import TrainingModule


def take_step(
    parallel: nn.Module,
    module: TrainingModule,
    micro_batches: list[Batch],
    optimizer: torch.optim.Optimizer,
    clip_norm: float | None,
    process: ProcessContext,
    stop: StopRequest,
) -> LaunchedStep:
    """Executes one optimizer step with this process's micro-batches of the batch.

    parallel: `module`, or DistributedDataParallel around it. optimizer: a fused one. The result provides the loss later.
    A loss or a gradient that is not finite leaves the weights as they are. Raises NonFiniteError if the predictions are not
    finite, and Interrupted in all processes, before any computation, if one of them was asked to stop.
    """
    # Each loss is a sum divided by a count over all processes and micro-batches. DDP averages gradients over processes,
    # so each process multiplies its loss by their number.
    counts = [len(target.labels) for batch in micro_batches for target in batch.targets]
    gathered = process.gather((counts, stop.signal))
    signals = [number for _, number in gathered if number is not None]
    if signals:
        raise Interrupted("asked to stop", signals[0])
    all_counts = [count for process_counts, _ in gathered for count in process_counts]
    normalizer = module.normalizer(all_counts)
    sums: dict[str, Tensor] = {}
    for index, batch in enumerate(micro_batches):
        last = index == len(micro_batches) - 1
        hold = nullcontext() if last or not isinstance(parallel, DistributedDataParallel) else parallel.no_sync()
        with hold:
            try:
                total, parts = parallel(batch.to(process.device), normalizer)
            except NonFiniteError as error:
                raise NonFiniteError(f"{error}, image ids {_image_ids([batch])}") from None
            (total * process.size).backward()
        for name, value in {"loss": total.detach(), **parts}.items():
            sums[name] = sums[name] + value if name in sums else value
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    norm = nn.utils.clip_grad_norm_(trainable, clip_norm or float("inf"), foreach=True)
    values = torch.stack([*sums.values(), norm])
    # A fused optimizer leaves weights and state as they are if `found_inf` is 1, which the host need not know before the update.
    skipped = (~values.isfinite().all()).to(torch.float32)
    optimizer.found_inf = skipped  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return LaunchedStep(tuple(sums), HostCopy(values), _image_ids(micro_batches), process, skipped)


@dataclass(frozen=True)
class LaunchedStep:
    """A step whose losses are read later, because the host would have to wait for the GPU.

    names: of the terms of the loss. values: the terms, and then the norm of the gradient. images: the ids of the images.
    skipped: 1.0 if the step changed no weight, else 0.0, on the device of the weights.
    """

    names: tuple[str, ...]
    values: HostCopy
    images: list[int]
    process: ProcessContext
    skipped: Tensor

    def read(self) -> dict[str, float]:
        """Returns this process's share of the loss and of its terms by name. All processes must call this method together.

        Raises NonFiniteError if the loss or the gradient was not finite; the step then changed no weight.
        """
        values = self.values.read()
        if not all(map(math.isfinite, values)):
            terms = ", ".join(f"{name} {value:g}" for name, value in zip([*self.names, "gradient norm"], values, strict=True))
            reports = [(all(map(math.isfinite, values[:-1])), f"({terms}), image ids {self.images}")]
            if not math.isfinite(values[-1]):  # the same in every process, because DDP shares the gradient
                reports = self.process.gather(reports[0])
            causes = [text for finite, text in reports if not finite] or [text for _, text in reports]
            raise NonFiniteError(f"the loss or its gradient is not finite {'; '.join(causes)}")
        return dict(zip(self.names, values, strict=False))


def _image_ids(batches: list[Batch]) -> list[int]:
    return [target.image_id for batch in batches for target in batch.targets]
