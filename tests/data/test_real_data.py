"""Real images: COCO with instances and panoptic segments, and blood cells. The tests are skipped if the images are missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detr_core.data.batching import BatchPlan, evaluation_batches, training_batches
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import AugmentationConfig, CropConfig, ResizeConfig, SplitConfig
from detr_core.data.splits import read_dataset, write_dataset
from detr_core.data.transforms import evaluation_transform, training_transform
from detr_core.distributed import single_process

ALONE = single_process(torch.device("cpu"))
PANOPTIC = SplitConfig("images", "instances.json", "panoptic.json", "panoptic")
INSTANCES = SplitConfig("images", "instances.json", None, None)
RECIPE = AugmentationConfig(0.5, CropConfig(0.5, (100, 125), 96, 150), ResizeConfig((120, 128, 136), 222))


def test_panoptic_annotations_of_coco_are_read_with_their_areas_and_boxes(real_data: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, real_data / "coco_panoptic", PANOPTIC, PANOPTIC)
    split = read_dataset(tmp_path)["train"]
    segments = CocoDataset(split, "panoptic", True, None, 0)
    assert (len(segments), len(segments.categories)) == (26, 133)
    assert sum(not category.isthing for category in segments.categories) == 53
    content = json.loads((real_data / "coco_panoptic" / "panoptic.json").read_text())
    expected = {entry["image_id"]: [s for s in entry["segments_info"] if not s["iscrowd"]] for entry in content["annotations"]}
    for index in range(0, 26, 5):
        sample = segments[index]
        target = sample.target
        own = expected[target.image_id]
        assert [segments.categories[label].id for label in target.labels] == [segment["category_id"] for segment in own]
        assert target.masks is not None
        assert [int(mask.sum()) for mask in target.masks] == [segment["area"] for segment in own]
        assert int(target.masks.sum(dim=0).max()) == 1
        height, width = target.size
        for mask, box in zip(target.masks, target.boxes, strict=True):
            center_x, center_y, w, h = (box * torch.tensor([width, height, width, height])).tolist()
            rows, columns = torch.where(mask)
            np.testing.assert_allclose(
                [center_x - w / 2, center_y - h / 2, center_x + w / 2, center_y + h / 2],
                [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1],
                atol=1e-3,
            )


@pytest.mark.parametrize(("name", "images", "objects"), [("coco_panoptic", 26, 181), ("coco_instances", 66, 639)])
def test_instances_of_coco_are_read_completely(real_data: Path, tmp_path: Path, name: str, images: int, objects: int) -> None:
    write_dataset(tmp_path, real_data / name, INSTANCES, INSTANCES)
    dataset = CocoDataset(read_dataset(tmp_path)["val"], "instances", True, evaluation_transform(ResizeConfig((64,), 110)), 0)
    assert (len(dataset), len(dataset.categories)) == (images, 80)
    whole = CocoDataset(dataset.split, "instances", False, None, 0)
    assert sum(len(whole[index].target.labels) for index in range(len(whole))) == objects
    grey = [path for path in dataset.split.images.iterdir() if Image.open(path).mode == "L"]
    images_read = 0
    for batch in evaluation_batches(dataset, 8, ALONE, 0):
        assert not batch.padding.exists
        for target in batch.targets:
            assert target.masks is not None
            assert target.masks.shape[1:] == target.size
        images_read += len(batch.targets)
    assert images_read == images
    for path in grey:
        index = dataset.image_ids.index(int(path.stem))
        red, green, blue = dataset[index].image
        assert torch.equal(red, green)
        assert torch.equal(red, blue)


def test_the_blood_cells_are_read_and_batched(real_data: Path, tmp_path: Path) -> None:
    train, val = (SplitConfig("images", f"instances_{split}.json", None, None) for split in ("train", "val"))
    write_dataset(tmp_path, real_data / "bccd", train, val)
    splits = read_dataset(tmp_path)
    dataset = CocoDataset(splits["train"], "instances", False, training_transform(RECIPE), 0)
    assert [category.name for category in dataset.categories] == ["RBC", "WBC", "Platelets"]
    assert (len(dataset), len(CocoDataset(splits["val"], "instances", False, None, 0))) == (205, 87)
    batch = next(iter(training_batches(dataset, BatchPlan(4, 1, 0), 0, 0, ALONE, 0)))
    assert batch.images.shape[:2] == (4, 3)
    for target in batch.targets:
        assert len(target.labels) > 0
        assert ((target.boxes >= 0) & (target.boxes <= 1)).all()


def test_no_mask_is_empty_after_the_recipes_augmentation(real_data: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, real_data / "coco_panoptic", PANOPTIC, PANOPTIC)
    dataset = CocoDataset(read_dataset(tmp_path)["train"], "panoptic", True, training_transform(RECIPE), 0)
    for batch in training_batches(dataset, BatchPlan(6, 1, 0), 0, 0, ALONE, 0):
        for target, padding in zip(batch.targets, batch.padding.mask, strict=True):
            assert target.masks is not None
            assert target.masks.flatten(1).any(dim=1).all()
            assert int((~padding).sum()) == target.size[0] * target.size[1]
