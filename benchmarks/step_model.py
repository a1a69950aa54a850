"""Counts what a training step of DETR computes and moves, and estimates from this how long a step takes on a GPU.

    python benchmarks/step_model.py [--images 8] [--height 800] [--width 1088] [--saved]

The counts are exact: a step is executed on tensors without values, and each operator adds its FLOPs, the bytes that an eager
kernel of it reads and writes, and one kernel. Views are free. The times are a model with assumed efficiencies, not a measurement.
`--saved` also counts the activations that are saved for the backward pass, with and without activation checkpointing.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from detr_core.model.common.normalisation import normalise
from detr_core.model.spec import build_detector
from detr_core.structures import Padding
from detr_core.train.folding import fold_norms
from detr_core.train.recomputation import recompute_activations
from flows.profile.settings import load

CLASSES = 133
MOVED_GOAL = 38.0  # GB of a step in bfloat16 with folded norms
# Operators that move nothing: views, allocations and questions.
FREE = {
    *("view", "expand", "permute", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "split", "unbind", "detach"),
    *("alias", "as_strided", "_unsafe_view", "reshape", "chunk", "unflatten", "lift_fresh", "_reshape_alias", "split_with_sizes"),
    *("empty", "empty_like", "empty_strided", "new_empty", "unfold", "device", "dim", "layout", "storage_offset"),
}
CONVOLUTIONS = {"convolution", "convolution_backward"}


class Traffic(TorchDispatchMode):
    """Counts the bytes that each operator reads and writes, as an eager kernel does, and the number of kernels.

    bytes: operator -> bytes. kernels: the number of kernels. biases: the bytes of the results of convolutions with a bias, read
    and written, because CUDA adds the bias in a kernel of its own unless it is compiled; `bytes` does not include them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.kernels, self.biases = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if name not in FREE and not name.startswith(("sym_", "is_")):
            self.bytes[name] += sum(_bytes(value) for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor))
            self.kernels += 1
        if name == "convolution" and args[2] is not None:
            self.biases += 2 * _bytes(result)
            self.kernels += 1
        return result


def _bytes(tensor: Tensor) -> int:
    """Returns the size of a tensor; a dimension along which it is expanded counts once."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride != 0 or size == 1 else 1
    return elements * tensor.element_size()


@dataclass(frozen=True)
class Step:
    """The counts of the forward and the backward pass of one step, without losses and optimizer.

    convolutions, products: FLOPs, of matrix products and attention the latter. moved: bytes. biases: bytes that CUDA moves in
    addition, to add the biases of convolutions. kernels: their number. saved: bytes of activations that the forward pass saves
    for the backward pass.
    """

    convolutions: float
    products: float
    moved: float
    biases: float
    kernels: int
    saved: float


def count(images: int, size: tuple[int, int], precision: torch.dtype, fold: bool, recompute: bool) -> Step:
    """Counts one step of the coco profile's detector without dropout, whose attention is then one fused kernel."""
    config = replace(load("coco").detector, dropout=0.0)
    kept: dict[int, tuple[int, Any]] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        kept[storage._cdata] = (storage.nbytes(), storage)  # the storage stays alive, so that no address is used again
        return value

    with FakeTensorMode():
        model = build_detector(config, CLASSES, isthing=[True] * CLASSES).train()
        if fold:
            fold_norms(model)
        if recompute:
            recompute_activations(model)
        pixels = torch.zeros(images, *size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        # One image is smaller than the padded size, so that attention has a mask, as it has in training.
        padding = Padding(torch.zeros(images, *size, dtype=torch.bool), ((size[0] // 2, size[1]), *[size] * (images - 1)))
        traffic, flops = Traffic(), FlopCounterMode(display=False)
        with flops, traffic:
            autocast = torch.autocast("cpu", precision, enabled=precision != torch.float32)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value), autocast:
                output = model(normalise(pixels, padding), padding)
            (output.logits.float().sum() + output.boxes.sum()).backward()
        weights = {value.untyped_storage()._cdata for value in (*model.parameters(), *model.buffers())}
        saved = sum(number for key, (number, _) in kept.items() if key not in weights)
    of_convolutions = sum(value for name, value in _flops(flops).items() if name in CONVOLUTIONS)
    total = sum(_flops(flops).values())
    return Step(of_convolutions, total - of_convolutions, sum(traffic.bytes.values()), traffic.biases, traffic.kernels, saved)


def _flops(counter: FlopCounterMode) -> dict[str, int]:
    return {str(operator).split(".")[-1]: value for operator, value in counter.get_flop_counts()["Global"].items()}


@dataclass(frozen=True)
class Gpu:
    """The published peaks of a GPU. peak: precision -> TFLOP/s of dense products. bandwidth: TB/s of its memory."""

    name: str
    peak: dict[str, float]
    bandwidth: float


GPUS = (
    Gpu("A100 80 GB", {"float32": 19.5, "tf32": 156, "bfloat16": 312}, 2.04),
    Gpu("H100 SXM", {"float32": 67, "tf32": 494, "bfloat16": 989}, 3.35),
)
# Assumed shares of the peaks. Products of reduced precision reach a smaller share of a higher peak.
OF_PEAK = {"float32": 0.70, "tf32": 0.38, "bfloat16": 0.40}
OF_BANDWIDTH = 0.80
LAUNCH = 5e-6  # seconds between two kernels if the host only launches them
HOST = 0.012  # seconds of a step that the GPU waits for the host: collecting counts, matching, copies, optimizer
HOST_AHEAD = 0.004  # the same if batches are copied in a stream of their own, and the host waits once
COPIED = 0.35  # share of the moved bytes that conversions of memory layout add where maps are not channels-last
COMPILED = 0.55  # share of the moved bytes of an eager step, without biases, that is left if neighbours become one kernel


def seconds(step: Step, gpu: Gpu, precision: str, host: float, moved: float) -> float:
    """Returns the modelled time of a step: products and convolutions, what else the memory must deliver, and the host's share.

    moved: the factor of the moved bytes.
    """
    computed = (step.convolutions + step.products) / (gpu.peak[precision] * 1e12 * OF_PEAK[precision])
    biases = step.biases if moved >= 1 else 0
    delivered = (step.moved * moved + biases) / (gpu.bandwidth * 1e12 * OF_BANDWIDTH)
    launched = step.kernels * LAUNCH
    return max(computed + delivered, launched) + host


def predictions(counts: Callable[[str, bool], Step], gpu: Gpu, images: int) -> list[tuple[str, float, float]]:
    """Returns (lever, milliseconds a step, images/s) of one GPU for each lever, one added after the other."""
    levers = [
        ("float32", "float32", False, HOST, 1 + COPIED),
        ("`precision: tf32`", "tf32", False, HOST, 1 + COPIED),
        ("`precision: bfloat16`", "bfloat16", False, HOST, 1 + COPIED),
        ("+ channels-last maps (always on a GPU)", "bfloat16", False, HOST, 1.0),
        ("+ `fold_norm: true`", "bfloat16", True, HOST, 1.0),
        ("+ copies beside the computation, one wait (always on a GPU)", "bfloat16", True, HOST_AHEAD, 1.0),
        ("+ `compile`", "bfloat16", True, HOST_AHEAD, COMPILED),
    ]
    rows = []
    for name, precision, fold, host, moved in levers:
        time = seconds(counts(precision, fold), gpu, precision, host, moved)
        rows.append((name, time * 1e3, images / time))
    return rows


def main() -> None:
    """Prints the tables of docs/performance.md. The exit status is 1 if a step moves more than the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="images of a step on one GPU")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1088)
    parser.add_argument("--saved", action="store_true", help="count the saved activations with activation checkpointing, too")
    options = parser.parse_args()
    if min(options.images, options.height // 32, options.width // 32) < 1:
        parser.error("expected at least 1 image of 32 x 32 pixels")
    size = (options.height, options.width)
    print(f"Counted, {options.images} x {size[0]} x {size[1]}, forward and backward pass")
    columns = ["precision", "`fold_norm`", "GFLOP an image", "of them convolutions", "GB moved", "and for biases on CUDA"]
    print(f"| {' | '.join([*columns, 'kernels', 'GiB of saved activations'])} |")
    print("|---|---|---|---|---|---|---|---|")
    counted: dict[tuple[str, bool], Step] = {}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        for fold in (False, True):
            step = counted[precision, fold] = count(options.images, size, dtype, fold, recompute=False)
            all_flops = (step.convolutions + step.products) / options.images / 1e9
            cells = [precision, str(fold).lower(), f"{all_flops:.0f}", f"{step.convolutions / options.images / 1e9:.0f}"]
            cells += [f"{step.moved / 1e9:.1f}", f"{step.biases / 1e9:.1f}", f"{step.kernels:,}", f"{step.saved / 2**30:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
    if options.saved:
        step = count(options.images, size, torch.bfloat16, fold=True, recompute=True)
        print(f"With activation_checkpointing, bfloat16, folded: {step.saved / 2**30:.2f} GiB of saved activations")
    for gpu in GPUS:
        print(f"\nModel, not measured: {gpu.name}\n| lever | ms a step | images/s |\n|---|---|---|")
        rows = predictions(lambda precision, fold: counted[precision.replace("tf32", "float32"), fold], gpu, options.images)
        for name, milliseconds, rate in rows:
            print(f"| {name} | {milliseconds:.0f} | {rate:.0f} |")
    moved = counted["bfloat16", True].moved / 1e9 * 8 * 800 * 1088 / (options.images * size[0] * size[1])
    if moved > MOVED_GOAL:
        raise SystemExit(f"a step moves {moved:.1f} GB, above the goal of {MOVED_GOAL} GB")


if __name__ == "__main__":
    main()
