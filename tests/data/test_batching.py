"""The batches of an epoch depend only on the seed, and evaluation reads each image once in any number of processes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from detr_core.data.batching import BatchPlan, all_training_batches, collate, evaluation_batches, steps_in_epoch, training_batches
from detr_core.data.coco_dataset import CocoDataset, Sample
from detr_core.data.config import AugmentationConfig, ResizeConfig
from detr_core.data.splits import DatasetError, Split
from detr_core.data.transforms import evaluation_transform, resized, training_transform
from detr_core.distributed import ProcessContext
from detr_core.structures import Target


@pytest.fixture
def dataset(write_split: Callable[..., Any], noise: Callable[..., Any]) -> CocoDataset:
    """Returns a dataset of 23 images, every second of which has an object."""
    images = [noise(6, 8, seed) for seed in range(23)]
    annotations = [{"image_id": i, "category_id": 2, "bbox": [1, 1, 3, 3]} for i in range(1, 24, 2)]
    return CocoDataset(
        write_split(images, annotations), "instances", False, training_transform(AugmentationConfig(0.5, None, None)), 7
    )


def process_of(rank: int, size: int) -> ProcessContext:
    return ProcessContext(rank, size, torch.device("cpu"))


ALONE = process_of(0, 1)


def batches(
    dataset: CocoDataset, epoch: int = 0, start_step: int = 0, process: ProcessContext = ALONE, workers: int = 0, **plan: int
) -> DataLoader[Any]:
    plan = {"batch_size": 8, "accumulation": 1, "seed": 0} | plan
    return training_batches(dataset, BatchPlan(**plan), epoch, start_step, process, workers)


def ids(loader: DataLoader[Any]) -> list[list[int]]:
    return [[target.image_id for target in batch.targets] for batch in loader]


def test_collate_pads_at_the_right_and_bottom() -> None:
    shapes = [(4, 6), (5, 3)]
    samples = [
        Sample(
            torch.full((3, h, w), 9, dtype=torch.uint8),
            Target(number, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), None, (h, w), (h, w)),
        )
        for number, (h, w) in enumerate(shapes)
    ]
    batch = collate(samples)
    assert batch.images.shape == (2, 3, 5, 6)
    assert batch.images.dtype == torch.uint8
    for image, padding, (h, w) in zip(batch.images, batch.padding.mask, shapes, strict=True):
        assert (image[:, :h, :w] == 9).all()
        assert int(image.sum()) == 9 * 3 * h * w
        assert not padding[:h, :w].any()
        assert int(padding.sum()) == 30 - h * w
    assert [target.image_id for target in batch.targets] == [0, 1]


def test_an_epoch_is_a_permutation_without_the_incomplete_last_batch(dataset: CocoDataset) -> None:
    epoch = ids(batches(dataset))
    assert [len(batch) for batch in epoch] == [8, 8]
    assert steps_in_epoch(23, 8) == 2
    assert max(Counter(chain.from_iterable(epoch)).values()) == 1
    assert ids(batches(dataset)) == epoch
    assert ids(batches(dataset, epoch=1)) != epoch
    assert ids(batches(dataset, seed=1)) != epoch


def test_fewer_images_than_a_batch_are_one_batch(dataset: CocoDataset) -> None:
    epoch = ids(batches(dataset, batch_size=50))
    assert [sorted(batch) for batch in epoch] == [list(range(1, 24))]
    assert steps_in_epoch(23, 50) == 1


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (1, 4), (2, 2), (3, 1)])
def test_processes_and_micro_batches_share_each_batch(dataset: CocoDataset, world_size: int, accumulation: int) -> None:
    whole = ids(batches(dataset))
    processes = [process_of(rank, world_size) for rank in range(world_size)]
    shares = [ids(batches(dataset, process=process, accumulation=accumulation)) for process in processes]
    for step, batch in enumerate(whole):
        micro = [share[step * accumulation + number] for share in shares for number in range(accumulation)]
        assert list(chain.from_iterable(micro)) == batch
        assert max(map(len, micro)) - min(map(len, micro)) <= 1


def test_starting_in_the_middle_gives_the_rest_without_reading_the_start(dataset: CocoDataset) -> None:
    whole = list(batches(dataset, batch_size=4, accumulation=2))
    read: list[Any] = []

    class RecordedRun(CocoDataset):
        def __getitem__(self, key: Any) -> Sample:
            read.append(key)
            return super().__getitem__(key)

    recorded = RecordedRun(dataset.split, "instances", False, dataset.transform, dataset.seed)
    rest = list(batches(recorded, batch_size=4, accumulation=2, start_step=3))
    assert len(read) == 8
    assert len(rest) == len(whole) - 6
    for actual, expected in zip(rest, whole[6:], strict=True):
        assert torch.equal(actual.images, expected.images)
        assert [target.image_id for target in actual.targets] == [target.image_id for target in expected.targets]


@pytest.mark.parametrize("workers", [1, 2])
def test_dataloader_workers_change_nothing(dataset: CocoDataset, workers: int) -> None:
    for actual, expected in zip(batches(dataset, epoch=3, workers=workers), batches(dataset, epoch=3), strict=True):
        assert torch.equal(actual.images, expected.images)
        assert torch.equal(actual.padding.mask, expected.padding.mask)
        for a, b in zip(actual.targets, expected.targets, strict=True):
            assert a.image_id == b.image_id
            assert torch.equal(a.boxes, b.boxes)


@pytest.mark.parametrize(("workers", "steps"), [(0, range(1, 7)), (2, range(2, 5)), (0, range(3, 3))])
def test_all_steps_of_a_training_are_those_of_its_epochs(dataset: CocoDataset, workers: int, steps: range) -> None:
    plan, process = BatchPlan(batch_size=8, accumulation=2, seed=0), process_of(1, 2)
    epoch_steps = steps_in_epoch(len(dataset), 8)
    assert epoch_steps < 4, "the steps are in more than one epoch"
    expected = []
    for step in steps:
        epoch, into_epoch = divmod(step, epoch_steps)
        of_epoch = ids(training_batches(dataset, plan, epoch, into_epoch, process, 0))
        expected += of_epoch[:2]
    assert ids(all_training_batches(dataset, plan, steps, process, workers)) == expected


def test_padded_sides_are_multiples(dataset: CocoDataset) -> None:
    images = [dataset[index] for index in range(3)]
    plain, padded = collate(images), collate(images, multiple=32)
    height, width = plain.images.shape[-2:]
    assert padded.images.shape[-2:] == (-(-height // 32) * 32, -(-width // 32) * 32)
    assert torch.equal(padded.images[..., :height, :width], plain.images)
    assert padded.padding.sizes == plain.padding.sizes
    assert padded.padding.mask[:, height:].all()
    assert padded.padding.mask[:, :, width:].all()
    (of_plan,) = {batch.images.shape[-1] % 32 for batch in batches(dataset, multiple=32)}
    assert of_plan == 0


def test_loading_leaves_the_global_random_numbers_alone(dataset: CocoDataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(batches(dataset))
    assert torch.equal(torch.rand(3), expected)


def test_too_many_slices_are_refused(dataset: CocoDataset) -> None:
    with pytest.raises(DatasetError, match="each of 4 processes x 8 micro-batches, found batches of 23"):
        batches(dataset, batch_size=64, process=process_of(0, 4), accumulation=8)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_each_image_once_and_pads_nothing(
    write_split: Callable[..., Any], noise: Callable[..., Any], world_size: int
) -> None:
    sizes = [(6, 8), (8, 6), (6, 8), (12, 16), (6, 9), (6, 8), (5, 5)]
    dataset = CocoDataset(
        write_split([noise(*size) for size in sizes], []), "instances", False, evaluation_transform(ResizeConfig((12,), 100)), 0
    )
    image_ids: list[int] = []
    for rank in range(world_size):
        for batch in evaluation_batches(dataset, 3, process_of(rank, world_size), 0):
            assert len(batch.targets) <= 3
            assert not batch.padding.exists
            assert {target.size for target in batch.targets} == {tuple(batch.images.shape[2:])}
            image_ids += [target.image_id for target in batch.targets]
    assert sorted(image_ids) == list(range(1, 8))


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CocoDataset]:
    """Returns a function that makes a dataset of images that are never read, because batches depend only on their sizes."""
    folder = tmp_path_factory.mktemp("annotated")

    def make(sizes: list[tuple[int, int]], resize: ResizeConfig | None) -> CocoDataset:
        entries = [{"id": i, "file_name": f"{i}.jpg", "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
        (folder / "instances.json").write_text(
            json.dumps({"images": entries, "annotations": [], "categories": [{"id": 1, "name": "cat"}]})
        )
        split = Split("val", folder, folder / "instances.json", None, None)
        return CocoDataset(split, "instances", False, evaluation_transform(resize), 0)

    return make


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=30),
    short=st.none() | st.integers(1, 50),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 5),
)
def test_evaluation_pads_nothing_and_reads_each_image_once_for_any_images(
    annotated: Callable[..., CocoDataset], sizes: list[tuple[int, int]], short: int | None, batch_size: int, world_size: int
) -> None:
    resize = None if short is None else ResizeConfig((short,), short + 30)
    dataset = annotated(sizes, resize)
    processes = [process_of(rank, world_size) for rank in range(world_size)]
    shares = [list(evaluation_batches(dataset, batch_size, process, 0).batch_sampler or []) for process in processes]
    batches = [[index for _, index in batch] for share in shares for batch in share]
    assert sorted(chain.from_iterable(batches)) == list(range(len(sizes)))
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert all(len({resized(sizes[index], resize) for index in batch}) == 1 for batch in batches), "one input size a batch"
    alone = [[index for _, index in batch] for batch in evaluation_batches(dataset, batch_size, ALONE, 0).batch_sampler or []]
    assert sorted(alone) == sorted(batches), "the same batches, however many processes"
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_evaluation_refuses_training_transforms(dataset: CocoDataset) -> None:
    with pytest.raises(TypeError, match="expected a dataset with an EvaluationTransform, found one with TrainingTransform"):
        evaluation_batches(dataset, 3, ALONE, 0)


def test_images_keep_their_memory_to_themselves(dataset: CocoDataset) -> None:
    # What is done to one reading of an image must not show in the next.
    first = dataset[(0, 0)]
    before = first.target.boxes.clone()
    first.image.zero_()
    first.target.boxes.zero_()
    second = dataset[(0, 0)]
    assert np.any(second.image.numpy())
    assert torch.equal(second.target.boxes, before)


def test_a_dataloader_worker_does_not_run_the_exit_hooks_of_its_parent(
    write_split: Callable[..., Any], noise: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = write_split([noise(6, 8, seed) for seed in range(23)], [])

    def stop_a_thread_that_the_worker_does_not_have() -> None:
        raise AssertionError("this thread does not run")

    hooks = [*threading._threading_atexits, stop_a_thread_that_the_worker_does_not_have]  # type: ignore[attr-defined]
    monkeypatch.setattr(threading, "_threading_atexits", hooks)
    evaluated = CocoDataset(split, "instances", False, evaluation_transform(None), 0)
    batches = list(evaluation_batches(evaluated, 4, process_of(0, 1), 2))
    assert sum(len(batch.targets) for batch in batches) == 23
