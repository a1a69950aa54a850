"""The index of a dataset gives the annotations of its files, takes no memory per process, and isn't used if it is damaged."""

from __future__ import annotations

import gc
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from detr_core.data.annotation_cache import Mapped, write_index
from detr_core.data.annotation_reader import read_annotations
from detr_core.data.annotations import Annotations
from detr_core.data.batching import BatchPlan, training_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import AugmentationConfig
from detr_core.data.splits import Split
from detr_core.data.transforms import training_transform
from detr_core.distributed import single_process

ALONE = single_process(torch.device("cpu"))


@pytest.fixture
def split(write_split: Callable[..., Any], noise: Callable[..., Any], tmp_path: Path) -> Split:
    """Returns a split of three images with instances, panoptic segments and an index."""
    ids = np.full((10, 20), 7)
    ids[:4, :5] = 300
    segments = [{"id": 300, "category_id": 2, "bbox": [0, 0, 5, 4]}, {"id": 7, "category_id": 7, "bbox": [0, 0, 20, 10]}]
    panoptic = [{"image_id": number, "file_name": f"{number}.png", "segments_info": segments} for number in (1, 3)]
    polygon = [[1, 1, 5, 1, 5, 5, 1, 5]]
    instances = [
        {"image_id": 1, "category_id": 5, "bbox": [1, 1, 4, 4], "segmentation": polygon},
        {"image_id": 2, "category_id": 5, "bbox": [9, 9, 0, 1]},
    ]
    plain: Split = write_split([noise(10, 20, n) for n in range(3)], instances, panoptic, [ids, ids])
    split = replace(plain, index=tmp_path / "index" / "val")
    indexes = list(write_index({"val": split}))
    assert [(name, targets) for name, targets, _ in indexes] == [("val", "instances"), ("val", "panoptic")]
    assert indexes[0][2]["empty_boxes"] == 1
    return split


def require_same(one: Annotations, other: Annotations) -> None:
    for field in fields(Annotations):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        elif field.name == "files":
            assert list(a) == list(b)
        elif field.name == "masks":
            assert (a is None) == (b is None)
        else:
            assert a == b


@pytest.mark.parametrize("targets", ["instances", "panoptic"])
@pytest.mark.parametrize("masks", [False, True])
def test_the_index_holds_the_content_of_the_file(split: Split, targets: Any, masks: bool) -> None:
    plain = replace(split, index=None)
    annotations = read_annotations(split, targets, masks)
    assert isinstance(annotations, Mapped)
    require_same(annotations, read_annotations(plain, targets, masks))
    if masks:
        one, other = (CocoDataset(source, targets, True, None, 0)[0].target for source in (split, plain))
        assert one.masks is not None
        assert other.masks is not None
        assert one.masks.equal(other.masks)


def test_another_process_gets_the_path_of_an_index_and_not_its_arrays(split: Split) -> None:
    annotations = read_annotations(split, "panoptic", True)
    assert len(pickle.dumps(annotations)) < 2000
    copy = pickle.loads(pickle.dumps(annotations))
    assert isinstance(copy, Mapped)
    require_same(copy, annotations)
    dataset = pickle.loads(pickle.dumps(CocoDataset(split, "panoptic", True, None, 0)))  # as a spawned process gets it
    assert len(dataset) == 3
    assert dataset[0].target.masks is not None


def test_changed_annotations_are_seen_even_at_the_same_size_and_time(split: Split) -> None:
    assert split.instances is not None
    status = split.instances.stat()
    split.instances.write_text(split.instances.read_text().replace('"bbox": [1, 1, 4, 4]', '"bbox": [2, 2, 4, 4]'))
    os.utime(split.instances, ns=(status.st_atime_ns, status.st_mtime_ns))
    annotations = read_annotations(split, "instances", False)
    assert not isinstance(annotations, Mapped)
    assert annotations.boxes.tolist() == [[2, 2, 6, 6]]


def spoil(index: Path, name: str) -> None:
    if name.endswith(".npy"):
        content = bytearray((index / name).read_bytes())
        content[-1] ^= 1
        (index / name).write_bytes(content)
    elif name == "gone":
        (index / "boxes.npy").unlink()
    else:
        about = json.loads((index / "index.json").read_text())
        (index / "index.json").write_text({"torn": "{", "list": "[]"}.get(name) or json.dumps(about | {"version": 0}))


@pytest.mark.parametrize("name", ["boxes.npy", "first.npy", "names.npy", "gone", "torn", "list", "version"])
def test_a_damaged_index_is_ignored(split: Split, name: str) -> None:
    assert split.index is not None
    spoil(split.index / "instances", name)
    annotations = read_annotations(split, "instances", False)
    assert not isinstance(annotations, Mapped)
    assert annotations.boxes.tolist() == [[1, 1, 5, 5]]


def test_neither_files_nor_memory_grow_over_epochs(split: Split) -> None:
    dataset = CocoDataset(split, "panoptic", True, training_transform(AugmentationConfig(0.5, None, None)), 0)
    process = psutil.Process()
    sizes: list[tuple[int, int]] = []
    for epoch in range(120):  # in this process, where what a dataloader worker would leave behind shows
        for _ in training_batches(dataset, BatchPlan(3, 1, 0), epoch, 0, ALONE, 0):
            pass
        if epoch in (40, 119):
            sizes.append((process.num_fds(), process.memory_info().rss))
    assert sizes[1][0] <= sizes[0][0]
    assert sizes[1][1] - sizes[0][1] < 4 * 2**20


def test_dataloader_workers_of_an_epoch_leave_nothing_behind(split: Split) -> None:
    dataset = CocoDataset(split, "panoptic", True, training_transform(AugmentationConfig(0.5, None, None)), 0)
    process, counts = psutil.Process(), []
    for epoch in range(4):
        batches = list(training_batches(dataset, BatchPlan(1, 1, 0), epoch, 0, ALONE, 1))
        assert len(batches) == 3
        del batches  # in memory that the dataloader workers shared
        gc.collect()
        counts.append((process.num_fds(), len(process.children())))
    assert counts[-1] == counts[0]
