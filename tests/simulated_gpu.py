"""Simulates a GPU with CPU tensors: real values, the device errors of CUDA, and a count of the host's waits.

Inside of `with SimulatedGpu() as gpu:` every tensor that is created on `cuda:0`, moved to it or computed from a tensor there is
regarded as one on the GPU, although its values are on the CPU. An operator that gets tensors of both devices raises RuntimeError,
as CUDA's would. The GPU works while the host goes on, until the host needs a value; `gpu.waits` counts how often it needs one.

A mark on a tensor object would be lost in autograd, which makes new objects, so the storages of tensors are remembered instead.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.utils._foreach_utils  # imported before its device groups are replaced
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")

# Operators whose result has a shape or a value that the host must know.
WAITING = {
    "aten::_local_scalar_dense",
    "aten::_unique2",
    "aten::bincount",
    "aten::equal",
    "aten::is_nonzero",
    "aten::item",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave",
    "aten::unique_consecutive",
    "aten::unique_dim",
    "torchvision::nms",
}
COPIES = {"aten::copy_", "aten::_to_copy", "aten::set_", "aten::_copy_from"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
A_STEP = 300  # operators; a step of the smallest detector has more
FROM_HOST_DATA: set[Callable[..., Any]] = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor}


class SimulatedGpu:
    """Simulates `cuda:0` while it is active.

    waits: (reason, 'file:line' of the project) -> how often the host waited for the GPU. copies: (whether it blocks, 'file:line')
    -> copies from the host to the GPU. Only a copy that blocks is a wait, although CUDA also stages one from pageable memory.
    """

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str]] = Counter()
        self.copies: Counter[tuple[str, str]] = Counter()
        self.operators = 0
        self._storages: dict[int, torch.UntypedStorage] = {}  # kept alive, so that no address is used again
        self._modes = (_Functions(self), _Operators(self))

    def holds(self, tensor: Tensor) -> bool:
        """Returns whether the tensor is on the simulated GPU."""
        with torch._C.DisableTorchFunction():
            return tensor.untyped_storage()._cdata in self._storages

    def take(self, tensor: Tensor) -> Tensor:
        """Regards the tensor, and every view of its storage, as one on the GPU."""
        with torch._C.DisableTorchFunction():
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = storage
        return tensor

    def release(self, tensor: Tensor) -> Tensor:
        """Regards a new tensor as one on the host."""
        with torch._C.DisableTorchFunction():
            self._storages.pop(tensor.untyped_storage()._cdata, None)
        return tensor

    def wait(self, reason: str) -> None:
        """Counts one wait of the host, for the line of the project that caused it."""
        self.waits[reason, _line()] += 1

    def forget_counts(self) -> None:
        """Begins to count anew."""
        self.waits.clear()
        self.copies.clear()

    def __enter__(self) -> SimulatedGpu:
        self._autocast, self._groups = torch.autocast.__init__, torch._C._group_tensors_by_device_and_dtype  # type: ignore[attr-defined]

        def autocast(mode: torch.autocast, device_type: str, *args: Any, **kwargs: Any) -> None:
            self._autocast(mode, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

        def groups(lists: Any, with_indices: bool = False) -> Any:
            # The original is C++, which sees the device where the values are.
            corrected = {}
            for (device, dtype), group in self._groups(lists, with_indices).items():
                on_gpu = any(isinstance(leaf, Tensor) and self.holds(leaf) for leaf in tree_leaves(group[0]))
                corrected[CUDA if on_gpu else device, dtype] = group
            return corrected

        def event() -> _Event:
            return _Event(self)

        self._event, torch.cuda.Event = torch.cuda.Event, event  # type: ignore[assignment,misc]
        torch.autocast.__init__ = autocast  # type: ignore[method-assign]
        torch._C._group_tensors_by_device_and_dtype = groups  # type: ignore[attr-defined]
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)
        torch.cuda.Event = self._event  # type: ignore[misc]
        torch.autocast.__init__ = self._autocast  # type: ignore[method-assign]
        torch._C._group_tensors_by_device_and_dtype = self._groups  # type: ignore[attr-defined]


class _Functions(TorchFunctionMode):
    """Answers what a tensor says about its device, and executes the functions that take a device."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu = dict(kwargs or {}), self.gpu
        kwargs.pop("pin_memory", None)  # there is no driver that could pin memory
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return CUDA if gpu.holds(args[0]) else func(*args)
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return gpu.holds(args[0])
        if func == Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return not gpu.holds(args[0])
        if func in (Tensor.numpy, Tensor.__array__) and gpu.holds(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory first.")
        if func is Tensor.tolist and gpu.holds(args[0]):
            gpu.wait("tolist")
            with torch._C.DisableTorchFunction(), _disable_current_modes():
                return func(*args)
        if func is Tensor.cpu:
            return self._moved(args[0], CPU, kwargs.get("non_blocking", False), None)
        if func is Tensor.cuda:
            return self._moved(args[0], CUDA, kwargs.get("non_blocking", False), None)
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        device = kwargs.get("device")
        if device is not None and torch.device(device).type == "cuda":
            if kwargs.get("generator") is not None:
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
            result = func(*args, **kwargs | {"device": CPU})
            if func in FROM_HOST_DATA:
                gpu.wait("data from the host")
            return gpu.take(result)
        if device is not None and func is torch.empty_like:
            return gpu.release(func(*args, **kwargs))
        if func is Tensor.new_tensor and device is None and gpu.holds(args[0]):
            gpu.wait("data from the host")
            return gpu.take(func(*args, **kwargs))
        return func(*args, **kwargs)

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        device, rest = kwargs.pop("device", None), list(args)
        if rest and (rest[0] is None or isinstance(rest[0], (str, torch.device))):
            device = rest.pop(0)
        elif rest and isinstance(rest[0], Tensor):
            other = rest.pop(0)
            device, kwargs["dtype"] = (CUDA if self.gpu.holds(other) else CPU), other.dtype
        if device is None:
            return tensor.to(*rest, **kwargs)  # a type or a memory format: an operator like any other
        non_blocking = kwargs.pop("non_blocking", rest[1] if len(rest) > 1 else False)
        dtype = kwargs.pop("dtype", rest[0] if rest else None)
        moved = self._moved(tensor, torch.device(device), non_blocking, dtype)
        return moved.to(**kwargs) if kwargs else moved

    def _moved(self, tensor: Tensor, device: torch.device, non_blocking: bool, dtype: torch.dtype | None) -> Tensor:
        gpu = self.gpu
        if dtype is not None and dtype != tensor.dtype:
            tensor = tensor.to(dtype)
        if gpu.holds(tensor) == (device.type == "cuda"):
            return tensor
        if device.type == "cpu":
            gpu.wait("copy to the host")
        else:
            gpu.copies["does not block" if non_blocking else "blocks", _line()] += 1
            if not non_blocking:
                gpu.wait("copy to the GPU")
        with _disable_current_modes():
            copy = tensor.clone()
        return gpu.take(copy) if device.type == "cuda" else copy


class _Operators(TorchDispatchMode):
    """Sees every operator, those of the backward pass too: checks the devices of its tensors and marks its results."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, gpu, name = kwargs or {}, self.gpu, func._schema.name
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        held = [gpu.holds(tensor) for tensor in tensors]
        if any(held):
            gpu.operators += 1
            self._check(name, args, tensors, held)
            known_size = name == "aten::repeat_interleave" and kwargs.get("output_size") is not None
            if name in WAITING and not known_size:
                gpu.wait(name.partition("::")[2])
        result = func(*args, **kwargs)
        in_backward = torch._C._current_graph_task_id() != -1
        if not tensors and in_backward:  # zeros of autograd, which it creates on the device of the gradient
            tree_map_only(Tensor, gpu.take, result)
        if (held[0] if name in COPIES and held else any(held)) and name != "aten::_local_scalar_dense":
            tree_map_only(Tensor, gpu.take, result)
        return result

    def _check(self, name: str, args: Any, tensors: list[Tensor], held: list[bool]) -> None:
        """Raises RuntimeError if CUDA would refuse the devices of an operator, and counts the waits of copies and indices."""
        gpu = self.gpu
        with_elements = {on_gpu for tensor, on_gpu in zip(tensors, held, strict=True) if tensor.dim() > 0}
        gpu_scalar = any(on_gpu for tensor, on_gpu in zip(tensors, held, strict=True) if tensor.dim() == 0)
        if name in COPIES:
            blocks = not (name == "aten::copy_" and len(args) > 2 and args[2])  # the third argument is `non_blocking`
            if len(with_elements) == 2 and blocks:
                gpu.wait("copy to the GPU" if held[0] else "copy to the host")
        elif name in INDEXING:
            for tensor, on_gpu in zip(tensors[1:], held[1:], strict=True):
                if on_gpu and not held[0]:
                    raise RuntimeError(f"indices should be on the same device as the indexed tensor (cpu): {name} at {_line()}")
                if not on_gpu and tensor.dim() > 0:
                    gpu.wait("index from the host")
            has_mask = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])
            fills = name != "aten::index" and args[2].numel() == 1  # the selected elements need not be counted
            if has_mask and held[0] and not fills:
                gpu.wait("boolean index")
        elif len(with_elements) == 2 or (gpu_scalar and with_elements == {False}):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu: "
                f"{name} at {_line()}, {[(tuple(tensor.shape), on_gpu) for tensor, on_gpu in zip(tensors, held, strict=True)]}"
            )


class _Event:
    """A point in the work of the simulated GPU. Waiting for it costs nothing if the GPU has much later work to do meanwhile."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        self.gpu, self.place = gpu, 0

    def record(self) -> None:
        """Sets the event behind the work that the GPU has so far."""
        self.place = self.gpu.operators

    def synchronize(self) -> None:
        """Waits until the GPU has reached the event, which is a wait unless a step's work has followed."""
        if self.gpu.operators - self.place < A_STEP:
            self.gpu.wait("event")


def _line() -> str:
    """Returns 'file:line' of the innermost function of the project that runs, 'autograd' if there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/detr_core/" in path and "site-packages" not in path:
            return f"{path.rpartition('/detr_core/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "autograd"
