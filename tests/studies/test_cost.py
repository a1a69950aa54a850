from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detr_core.studies.cost import cost, parameters
from tests.tiny_detector import CPU, dataset_of, detector, scenes


class Convolution(nn.Module):
    """4 multiply-adds of each of 3 channels for each of 2 output channels at each position where a 2 x 2 kernel fits."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, kernel_size=2, bias=False)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)

    def forward(self, images: Tensor, padding: Tensor) -> Tensor:
        result: Tensor = self.convolution(images)
        return result


def test_a_multiply_add_is_one_and_frozen_parameters_do_not_count(tmp_path: Path) -> None:
    model = Convolution()
    found = cost(model, dataset_of(scenes(tmp_path)), CPU)
    assert found.gflops == pytest.approx(63 * 63 * 2 * 3 * 4 / 1e9)
    assert found.parameters == pytest.approx(24 / 1e6)
    assert found.images_per_second > 0
    assert found.machine.endswith(("thread", "threads"))
    assert model.convolution.weight.requires_grad, "counting changes nothing"


def test_attention_is_counted(tmp_path: Path) -> None:
    dataset = dataset_of(scenes(tmp_path))
    few, many = (detector(dataset.categories, mask_head=False, queries=queries).eval() for queries in (4, 40))
    assert parameters(many) - parameters(few) == pytest.approx(36 * 32 / 1e6)
    with torch.no_grad():
        assert cost(many, dataset, CPU).gflops > cost(few, dataset, CPU).gflops
