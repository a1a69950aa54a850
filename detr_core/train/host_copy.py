"""Copies values from the GPU to the host while both go on with their work."""

from __future__ import annotations

from torch import Tensor, cuda, empty_like


class HostCopy:
    """A copy of a few values on the host, which the GPU makes when it has computed them."""

    def __init__(self, values: Tensor) -> None:
        """Asks the GPU for the copy. Values on the CPU are not copied."""
        self._event: cuda.Event | None = None
        self._values = values
        if values.is_cuda:
            self._values = empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            self._event = cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> list[float]:
        """Returns the values. The host waits until the copy is there, but not for later work of the GPU."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._values.tolist()
        return values
