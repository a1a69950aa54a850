"""Copies batches to the GPU beside its computations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from detr_core.structures import Batch


def copied(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields the batches on `device`.

    On a GPU each batch is copied in a stream of its own. The host asks for the next batch while the GPU still computes the
    backward pass of the step before, so that the copy and this computation take place at the same time.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = batch.to(device)
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        moved.record_stream(current)
        yield moved
