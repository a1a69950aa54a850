"""FLOPs and parameters of a detector are counted as in the paper."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import roi_align

from detr_core.structures import Padding
from detr_core.studies.cost import cost, parameters
from tests.tiny_detector import CPU, dataset_of, detector, scenes


class Convolution(nn.Module):
    """4 multiply-adds of each of 3 channels for each of 2 output channels at each position where a 2 x 2 kernel fits."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, kernel_size=2, bias=False)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)

    def forward(self, images: Tensor, padding: Padding) -> Tensor:
        result: Tensor = self.convolution(images)
        return result


def test_a_multiply_add_is_one_and_frozen_parameters_do_not_count(tmp_path: Path) -> None:
    model = Convolution()
    result = cost(model, dataset_of(scenes(tmp_path)), CPU)
    assert result.gflops == pytest.approx(63 * 63 * 2 * 3 * 4 / 1e9)
    assert (result.gflops_of_size, result.size) == (pytest.approx(result.gflops), "64 x 64")
    assert result.parameters == pytest.approx(24 / 1e6)
    assert result.images_per_second > 0
    assert result.machine.endswith(", 1 thread")
    assert model.convolution.weight.requires_grad, "counting changes nothing"


def test_attention_is_counted(tmp_path: Path) -> None:
    dataset = dataset_of(scenes(tmp_path))
    few, many = (detector(dataset.categories, mask_head=False, queries=queries).eval() for queries in (4, 40))
    assert parameters(many) - parameters(few) == pytest.approx(36 * 32 / 1e6)
    with torch.no_grad():
        assert cost(many, dataset, CPU).gflops > cost(few, dataset, CPU).gflops


class Samples(nn.Module):
    """Of maps with 3 channels: 5 x 7 bilinear samples, and 2 boxes pooled to 4 x 4 of 2 x 2 samples each."""

    def forward(self, images: Tensor, padding: Padding) -> tuple[Tensor, Tensor]:
        sampled = functional.grid_sample(images, torch.zeros(len(images), 5, 7, 2), align_corners=False)
        boxes = torch.tensor([[0.0, 1, 1, 9, 9], [0, 2, 2, 20, 30]])
        return sampled, roi_align(images, boxes, output_size=4, sampling_ratio=2)


def test_bilinear_samples_of_a_map_are_counted(tmp_path: Path) -> None:
    result = cost(Samples(), dataset_of(scenes(tmp_path)), CPU)
    assert result.gflops == pytest.approx((3 * 5 * 7 * 4 + 2 * 3 * 4 * 4 * 2 * 2 * 4) / 1e9)
