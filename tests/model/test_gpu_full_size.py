"""The forward pass at the paper's size on tensors that have the device and the type of a GPU's, but no values.

Under CUDA's own autocast this shows the device and the type of every result. An operator whose result the host must
know raises an error. The backward pass is not possible without values; tests/train/test_gpu_steps.py has it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from detr_core.model.common.normalisation import normalise
from detr_core.model.common.placement import use_channels_last
from detr_core.model.spec import build_detector, detector_config
from detr_core.structures import Padding, SigmoidOutput, SoftmaxOutput
from flows.profile.settings import load

CUDA = torch.device("cuda", 0)
SIZE = (800, 1088)


@pytest.fixture(autouse=True)
def _autocast_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)


def architecture(kind: str) -> Any:
    """Returns the configuration of the coco profile's DETR, or that of its Deformable DETR."""
    settings = load("coco")
    if kind == "detr":
        return settings.detector
    return detector_config(settings.studies.training["baselines"].variants[kind]["detector"], "coco")


def is_channels_last(values: Tensor) -> bool:
    return values.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("kind", "precision"), [("detr", torch.float32), ("detr", torch.bfloat16), ("deformable", torch.bfloat16)]
)
def test_nothing_in_the_forward_pass_makes_the_host_wait(kind: str, precision: torch.dtype) -> None:
    config = architecture(kind)
    with FakeTensorMode():
        with torch.device(CUDA):
            model = build_detector(config, 91, isthing=[True] * 91).train()
        use_channels_last(model)  # what `place` does after a model has been moved
        layouts: list[bool] = []
        for module in model.backbone[0].modules():
            if isinstance(module, torch.nn.Conv2d):
                assert is_channels_last(module.weight)
                module.register_forward_hook(lambda _, maps, result: layouts.extend(map(is_channels_last, (*maps, result))))
        images = torch.zeros(8, *SIZE, 3, dtype=torch.uint8, device=CUDA).permute(0, 3, 1, 2)  # as in a batch
        mask = torch.zeros(8, *SIZE, dtype=torch.bool, device=CUDA)
        padding = Padding(mask, ((800, 1088), (640, 1088), (800, 900), *[SIZE] * 5))
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            output = model(normalise(images, padding), padding)
    assert len(layouts) == 2 * 53, "of the 53 convolutions' inputs and outputs"
    if precision == torch.float32:  # without a GPU torch does not know that cuDNN has convolutions in bfloat16
        assert all(layouts), "no map is copied into another memory layout"
    assert isinstance(output, SoftmaxOutput | SigmoidOutput)
    assert (output.logits.device, output.boxes.device) == (CUDA, CUDA)
    assert output.boxes.dtype == torch.float32, "boxes need more precision than bfloat16"
    assert output.logits.dtype == precision
    assert output.logits.shape[:2] == (6, 8)


def test_reading_a_value_on_the_host_raises_an_error() -> None:
    with FakeTensorMode():
        mask = torch.zeros(8, *SIZE, dtype=torch.bool, device=CUDA)
        with pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
            bool(mask.any())
