"""Measures the costs of a detector: parameters, FLOPs and speed, as in Table 1 of the paper."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torchvision  # noqa: F401  registers roi_align, which is counted below
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from detr_core.data.batching import evaluation_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.distributed import single_process
from detr_core.model.common.normalisation import normalise
from detr_core.processor import processor_name

IMAGES = 100  # number of measured images, the first ones of the val split, one at a time as in the paper
WARM_UP = 5
CORNERS = 4  # number of values in the weighted mean of a bilinear sample


@dataclass(frozen=True)
class Cost:
    """The costs of a detector.

    parameters: the number of trained parameters in millions. gflops: the billions of FLOPs for one image, as a mean over the
    measured images. A multiply-add is one FLOP, as in the paper, and a bilinear sample of a feature map is four. Elementwise
    operations (norms, activations) and NMS do not count. gflops_of_size: the same for an image of `size`, 'HEIGHT x WIDTH', the
    most frequent one, so that values of different datasets can be compared. images_per_second: the mean speed on `machine` for
    one image at a time, boxes and classes only.
    """

    parameters: float
    gflops: float
    gflops_of_size: float
    size: str
    images_per_second: float
    machine: str


@torch.inference_mode()
def cost(model: nn.Module, dataset: CocoDataset, device: torch.device) -> Cost:
    """Returns the costs of `model`, which is on `device` and in eval mode, measured on the first images of `dataset`."""
    images = []
    for batch in evaluation_batches(dataset, 1, single_process(torch.device("cpu")), workers=0):
        pixels, padding = batch.images.to(device), batch.padding.to(device)
        images.append((normalise(pixels, padding), padding))
        if len(images) == IMAGES:
            break
    shapes = Counter(pixels.shape for pixels, _ in images)
    flops_of_shape = {shape: _flops(model, next(image for image in images if image[0].shape == shape)) for shape in shapes}
    total = sum(flops_of_shape[shape] * times for shape, times in shapes.items())
    frequent = shapes.most_common(1)[0][0]
    rate = len(images) / sum(_seconds(model, images, device))
    return Cost(
        parameters(model),
        total / len(images) / 1e9,
        flops_of_shape[frequent] / 1e9,
        f"{frequent[-2]} x {frequent[-1]}",
        rate,
        machine(device),
    )


def _seconds(model: nn.Module, images: list[tuple[Tensor, Tensor]], device: torch.device) -> list[float]:
    """Returns the seconds of each image.

    The measurement uses one CPU thread, because several threads wait for one another, which varies with other work.
    """
    seconds, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for image in (*images[:WARM_UP], *images):
            _finish(device)
            start = time.perf_counter()
            model(*image)
            _finish(device)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return seconds[-len(images) :]


def parameters(model: nn.Module) -> float:
    """Returns the number of trained parameters in millions. A frozen stem and first stage don't count, as in the paper."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) / 1e6


def machine(device: torch.device) -> str:
    """Returns the name of the GPU, or the name of the processor with '1 thread'."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, 1 thread"


def _flops(model: nn.Module, image: tuple[torch.Tensor, torch.Tensor]) -> float:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)  # inference needs no gradients, and the counter would track them
        with FlopCounterMode(display=False, custom_mapping=_SAMPLING) as counter:
            model(*image)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    return float(counter.get_total_flops()) / 2  # torch counts a multiply-add as two FLOPs


def _grid_sample_flops(*arguments: Any, out_shape: Any = None, **others: Any) -> int:
    return int(2 * CORNERS * prod(out_shape))


def _roi_align_flops(*arguments: Any, out_shape: Any = None) -> int:
    _maps, _boxes, _scale, _height, _width, sampling_ratio, _aligned = arguments  # those of torchvision's roi_align
    return int(2 * CORNERS * sampling_ratio**2 * prod(out_shape))


# Formulas for Deformable DETR's attention and Faster R-CNN's pooling, which torch lacks. Here a multiply-add is two FLOPs.
_SAMPLING = {
    torch.ops.aten.grid_sampler_2d: _grid_sample_flops,
    torch.ops.torchvision.roi_align: _roi_align_flops,
}


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
