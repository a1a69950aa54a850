"""A step has the same loss and gradient however its images are distributed among processes and micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_convert, masks_to_boxes

from detr_core.data.batching import collate
from detr_core.data.coco_dataset import CocoDataset, Sample
from detr_core.data.distribution import by_shape
from detr_core.structures import Batch
from detr_core.train.modules import TrainingModule
from tests.jobs.training_process import float64, on_canvas
from tests.kinds import short_for
from tests.tiny_detector import dataset_of, scenes
from tests.train.test_gpu_steps import module_of

SIDE = 64  # of the scenes
SIZES = [(64, 64), (40, 32), (32, 40), (60, 64), (32, 32), (36, 40)]
NAMES = ["detr", "joint mask head", pytest.param("frozen mask head", marks=pytest.mark.long), *short_for("faster_rcnn")]
Gradient = dict[str, Tensor]


@pytest.fixture(scope="module", autouse=True)
def _in_float64() -> Iterator[None]:
    with float64():
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    return dataset_of(scenes(tmp_path_factory.mktemp("scenes")), masks=True)


def corner(sample: Sample, size: tuple[int, int], seed: int) -> Sample:
    """Returns the upper left part of an image, with those objects that are visible there, in float64."""
    rows, columns = size
    target = sample.target
    assert target.masks is not None
    masks = target.masks[:, :rows, :columns]
    visible = masks.flatten(1).any(1)
    masks = masks[visible]
    boxes = box_convert(masks_to_boxes(masks), "xyxy", "cxcywh").double() / torch.tensor([columns, rows] * 2)
    parts = {"labels": target.labels[visible], "boxes": boxes, "masks": masks, "size": size, "original_size": size}
    return Sample(sample.image[:, :rows, :columns], replace(target, **parts, sampling_seed=seed))


def step(module: TrainingModule, micro_batches: list[list[Sample]]) -> tuple[float, Gradient]:
    """Returns the loss and the gradient of one step, as the sums over micro-batches whose images are padded to SIDE x SIDE."""
    batches: list[Batch] = [on_canvas(collate(samples), SIDE) for samples in micro_batches]
    normalizer = module.normalizer([len(target.labels) for batch in batches for target in batch.targets])
    module.zero_grad()
    loss = 0.0
    for batch in batches:
        total, _ = module(batch, normalizer)
        total.backward()
        loss += total.item()
    return loss, {name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None}


def assert_same_step(ours: tuple[float, Gradient], expected: tuple[float, Gradient]) -> None:
    assert ours[0] == pytest.approx(expected[0], rel=1e-11)
    assert ours[1].keys() == expected[1].keys()
    largest = max(gradient.abs().max().item() for gradient in expected[1].values())
    assert largest > 0
    for name, gradient in expected[1].items():
        difference = (ours[1][name] - gradient).abs() - 1e-8 * gradient.abs()
        assert difference.max() <= 1e-12 * largest, name


@pytest.mark.parametrize("mixed", [False, True], ids=["one size", "mixed sizes"])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_are_the_same_under_any_distribution(dataset: CocoDataset, name: str, mixed: bool) -> None:
    module, _ = module_of(name, dataset)
    module.double().train()
    sizes = SIZES if mixed else [(SIDE, SIDE)] * len(SIZES)
    samples = [corner(dataset[number], size, number) for number, size in enumerate(sizes)]
    expected = step(module, [samples])

    @settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, 3), min_size=len(samples), max_size=len(samples)))
    def check(owners: list[int]) -> None:
        groups = [[sample for sample, owner in zip(samples, owners, strict=True) if owner == part] for part in range(4)]
        assert_same_step(step(module, [group for group in groups if group]), expected)

    check()
    for processes, accumulation in ((2, 1), (2, 2)):
        groups = [part for process in by_shape(sizes, processes, accumulation) for part in process]
        if mixed:
            assert len(set(map(len, groups))) > 1, "the numbers of images differ"
        assert_same_step(step(module, [[samples[position] for position in group] for group in groups]), expected)
