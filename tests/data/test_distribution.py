"""Images are distributed by shape: every image once, never more padding than by position, and the same in every process."""

from __future__ import annotations

import json
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from detr_core.data import distribution
from detr_core.data.batching import BatchPlan, steps_in_epoch, training_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import AugmentationConfig, CropConfig, ResizeConfig
from detr_core.data.distribution import by_shape, contiguous, padded_pixels
from detr_core.data.splits import Split
from detr_core.data.transforms import training_transform
from detr_core.distributed import ProcessContext

SIDES = st.integers(1, 60)
SIZES = st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=40)
RECIPE = AugmentationConfig(0.5, CropConfig(0.5, (40, 50, 60), 38, 60), ResizeConfig((48, 56, 64, 72, 80), 133))


def processes_and_micro_batches(images: int) -> st.SearchStrategy[tuple[int, int]]:
    numbers = st.integers(1, images)
    return numbers.flatmap(lambda processes: st.tuples(st.just(processes), st.integers(1, images // processes)))


@settings(deadline=None)
@given(SIZES.flatmap(lambda sizes: st.tuples(st.just(sizes), processes_and_micro_batches(len(sizes)))))
def test_every_image_is_in_one_micro_batch_and_neither_maximum_is_worse(
    case: tuple[list[tuple[int, int]], tuple[int, int]],
) -> None:
    sizes, (processes, accumulation) = case
    parts = by_shape(sizes, processes, accumulation)
    assert [len(process) for process in parts] == [accumulation] * processes
    micro_batches = list(chain.from_iterable(parts))
    assert all(micro_batches), "no micro-batch is empty"
    assert sorted(chain.from_iterable(micro_batches)) == list(range(len(sizes)))
    assert by_shape(sizes, processes, accumulation) == parts
    before = contiguous(len(sizes), processes, accumulation)
    for most in (distribution.most_pixels_of_a_process, distribution.most_pixels_of_a_micro_batch):
        assert most(sizes, parts) <= most(sizes, before)


def test_the_largest_micro_batch_is_near_the_best_of_all_distributions() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(40):
        sizes = [(int(h), int(w)) for h, w in rng.choice([40, 60, 75, 80, 100], (6, 2))]
        ours = distribution.most_pixels_of_a_process(sizes, by_shape(sizes, 3, 1))
        ratios.append(ours / smallest_maximum(sizes, 3))
    assert min(ratios) == 1
    assert np.mean(ratios) < 1.2
    assert max(ratios) < 1.6


def smallest_maximum(sizes: list[tuple[int, int]], micro_batches: int) -> int:
    """Returns the padded pixels of the largest micro-batch, for the best of all distributions."""
    numbers = product(range(micro_batches), repeat=len(sizes))
    distributions = [[np.flatnonzero(np.equal(owner, part)).tolist() for part in range(micro_batches)] for owner in numbers]
    return min(max(padded_pixels(sizes, part) for part in parts) for parts in distributions if all(parts))


def test_landscape_and_portrait_images_are_separated_and_large_ones_are_fewer() -> None:
    sizes = [(60, 80), (80, 60)] * 4
    assert sorted(chain.from_iterable(by_shape(sizes, 2, 1))) == [[0, 2, 4, 6], [1, 3, 5, 7]]
    sizes = [(20, 20), (20, 20), (40, 40), (20, 20), (20, 20)]
    assert by_shape(sizes, 2, 1) == [[[0, 1, 3, 4]], [[2]]] or by_shape(sizes, 2, 1) == [[[2]], [[0, 1, 3, 4]]]
    assert by_shape([(5, 7)] * 6, 3, 2) == contiguous(6, 3, 2), "images of one size stay where they are"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    """Returns a dataset of 61 images that are never read, because batches depend only on their sizes."""
    return annotated(tmp_path_factory.mktemp("annotated"))


def annotated(folder: Path) -> CocoDataset:
    sides = np.random.default_rng(0).integers(30, 90, (61, 2)).tolist()
    entries = [{"id": i, "file_name": f"{i}.jpg", "height": h, "width": w} for i, (h, w) in enumerate(sides)]
    content = {"images": entries, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    split = Split("train", folder, folder / "instances.json", None, None)
    return CocoDataset(split, "instances", False, training_transform(RECIPE), 3)


def keys(dataset: CocoDataset, plan: BatchPlan, epoch: int, start: int, rank: int, size: int) -> list[list[tuple[int, int]]]:
    loader = training_batches(dataset, plan, epoch, start, ProcessContext(rank, size, torch.device("cpu")), 0)
    micro_batches: Any = loader.batch_sampler
    assert len(loader) == len(list(micro_batches))
    return list(micro_batches)


@settings(deadline=None, max_examples=30)
@given(
    batch_size=st.integers(12, 70),
    processes=st.integers(1, 4),
    accumulation=st.integers(1, 3),
    epoch=st.integers(0, 5),
    start=st.integers(0, 9),
)
def test_a_step_has_the_same_images_and_a_resumed_epoch_goes_on_exactly(
    dataset: CocoDataset, batch_size: int, processes: int, accumulation: int, epoch: int, start: int
) -> None:
    plan = BatchPlan(batch_size, accumulation, 5, "by_shape")
    steps = steps_in_epoch(len(dataset), batch_size)
    whole = keys(dataset, BatchPlan(batch_size, 1, 5), epoch, 0, 0, 1)
    shares = [keys(dataset, plan, epoch, 0, rank, processes) for rank in range(processes)]
    for step in range(steps):
        micro = [share[step * accumulation + number] for share in shares for number in range(accumulation)]
        assert all(micro)
        assert sorted(chain.from_iterable(micro)) == sorted(whole[step])
    start = min(start, steps)
    for rank, share in enumerate(shares):
        assert keys(dataset, plan, epoch, start, rank, processes) == share[start * accumulation :]


def test_the_profile_without_the_key_keeps_its_distribution(dataset: CocoDataset) -> None:
    shares = [keys(dataset, BatchPlan(20, 2, 5), 1, 0, rank, 3) for rank in range(3)]
    order = np.random.default_rng([5, 1]).permutation(61).tolist()
    for step in range(3):
        batch = [(1, index) for index in order[step * 20 : step * 20 + 20]]
        slices = [batch[0:3], batch[3:6], batch[6:9], batch[9:13], batch[13:16], batch[16:20]]
        assert [micro for share in shares for micro in share[2 * step : 2 * step + 2]] == slices


@settings(deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(0, 2**32), st.booleans(), st.booleans())
def test_the_size_is_known_before_the_image_is_read(height: int, width: int, seed: int, crop: bool, resize: bool) -> None:
    config = AugmentationConfig(0.5, RECIPE.crop if crop else None, RECIPE.resize if resize else None)
    transform = training_transform(config)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
    transformed, _, _ = transform(image, _no_boxes(height, width), None, rng)
    assert transform.size((height, width), same) == tuple(transformed.shape[1:])
    assert rng.integers(2**63) == same.integers(2**63), "both draw the same random numbers"


def _no_boxes(height: int, width: int) -> torch.Tensor:
    return tv_tensors.BoundingBoxes(torch.zeros(0, 4), format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=(height, width))
