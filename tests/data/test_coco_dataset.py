"""A COCO split gives images with the boxes, labels and masks of its annotation files."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import crop

from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import AugmentationConfig
from detr_core.data.splits import DatasetError
from detr_core.data.transforms import training_transform
from detr_core.structures import Category

CAT, DOG, SKY = 2, 5, 7
BLANK = np.zeros((10, 20, 3), dtype=np.uint8)


def instance(image: int, category: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}


def polygon(x: float, y: float, w: float, h: float) -> list[list[float]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def test_boxes_labels_and_ids_are_those_of_the_file(write_split: Callable[..., Any]) -> None:
    split = write_split([BLANK, BLANK], [instance(2, DOG, [5, 2, 10, 4]), instance(2, CAT, [0, 0, 20, 10])])
    dataset = CocoDataset(split, "instances", False, None, 0)
    assert dataset.categories == (Category(CAT, "cat", True), Category(DOG, "dog", True), Category(SKY, "sky", False))
    assert dataset.image_ids == [1, 2]
    assert dataset.sizes == [(10, 20), (10, 20)]
    target = dataset[1].target
    assert target.image_id == 2
    assert target.labels.tolist() == [1, 0]
    assert target.boxes.tolist() == [[0.5, pytest.approx(0.4), 0.5, pytest.approx(0.4)], [0.5, 0.5, 1, 1]]
    assert target.masks is None
    assert target.size == target.original_size == (10, 20)


def test_an_image_without_objects_has_empty_targets(write_split: Callable[..., Any]) -> None:
    for masks in (False, True):
        split = write_split([BLANK], [])
        target = CocoDataset(split, "instances", masks, training_transform(AugmentationConfig(1.0, None, None)), 0)[0].target
        assert target.boxes.shape == (0, 4)
        assert target.labels.shape == (0,)
        assert target.labels.dtype == torch.int64
        assert (target.masks is not None) == masks
        if target.masks is not None:
            assert target.masks.shape == (0, 10, 20)


def test_crowds_and_degenerate_boxes_are_left_out(write_split: Callable[..., Any]) -> None:
    whole = {"size": [10, 20], "counts": [0, 200]}
    split = write_split(
        [BLANK],
        [
            instance(1, CAT, [0, 0, 20, 10], segmentation=whole) | {"iscrowd": 1},
            instance(1, CAT, [3, 3, 0, 5], segmentation=whole),  # no width
            instance(1, CAT, [3, 3, 5, -1], segmentation=whole),  # less than no height
            instance(1, CAT, [25, 2, 5, 5], segmentation=whole),  # outside
            instance(1, DOG, [15, 5, 10, 10], segmentation=whole),  # reaches out: clipped to 15..20, 5..10
        ],
    )
    for masks in (False, True):
        target = CocoDataset(split, "instances", masks, None, 0)[0].target
        assert target.labels.tolist() == [1]
        torch.testing.assert_close(target.boxes, torch.tensor([[17.5 / 20, 7.5 / 10, 5 / 20, 5 / 10]]))


def test_polygons_and_run_lengths_become_masks(write_split: Callable[..., Any]) -> None:
    # Run lengths go down the columns: 10 zeros are the first column, 20 ones the next two.
    split = write_split(
        [BLANK],
        [
            instance(1, CAT, [2, 1, 4, 3], segmentation=polygon(2, 1, 4, 3)),
            instance(1, DOG, [1, 0, 2, 10], segmentation={"size": [10, 20], "counts": [10, 20, 170]}),
            instance(1, DOG, [0, 0, 9, 9], segmentation=[polygon(0, 0, 2, 2)[0], polygon(6, 6, 3, 3)[0]]),
        ],
    )
    masks = CocoDataset(split, "instances", True, None, 0)[0].target.masks
    assert masks is not None
    expected = torch.zeros(3, 10, 20, dtype=torch.bool)
    expected[0, 1:4, 2:6] = True
    expected[1, :, 1:3] = True
    expected[2, :2, :2] = True
    expected[2, 6:9, 6:9] = True
    assert torch.equal(masks, expected)


def panoptic(image: int, segments: list[tuple[int, int, list[int]]], crowd: int | None = None) -> dict[str, Any]:
    return {
        "image_id": image,
        "file_name": f"{image}.png",
        "segments_info": [
            {"id": number, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": int(number == crowd)}
            for number, category, bbox in segments
        ],
    }


def test_panoptic_segments_become_targets_without_crowds(write_split: Callable[..., Any]) -> None:
    ids = np.full((10, 20), 70_000)
    ids[4:8, 5:9] = 300
    ids[0, 0] = 9  # one pixel
    ids[9, 10:] = 4  # a crowd
    segments = [(300, CAT, [5, 4, 4, 4]), (70_000, SKY, [0, 0, 20, 10]), (9, DOG, [0, 0, 1, 1]), (4, CAT, [10, 9, 10, 1])]
    split = write_split([BLANK, BLANK], panoptic=[panoptic(1, segments, crowd=4)], id_maps=[ids])
    target = CocoDataset(split, "panoptic", True, None, 0)[0].target
    assert target.labels.tolist() == [0, 2, 1]
    torch.testing.assert_close(target.boxes[2], torch.tensor([0.5 / 20, 0.5 / 10, 1 / 20, 1 / 10]))
    assert target.masks is not None
    for mask, number in zip(target.masks, (300, 70_000, 9), strict=True):
        assert torch.equal(mask, torch.from_numpy(ids == number))
    without = CocoDataset(split, "panoptic", True, None, 0)[1].target
    assert without.masks is not None
    assert without.masks.shape == (0, 10, 20)


def test_boxes_of_segments_need_no_png(write_split: Callable[..., Any]) -> None:
    split = write_split([BLANK], panoptic=[panoptic(1, [(1, CAT, [5, 4, 4, 4])])], id_maps=[np.ones((10, 20), dtype=int)])
    (split.panoptic_masks / "1.png").unlink()
    assert CocoDataset(split, "panoptic", False, None, 0)[0].target.labels.tolist() == [0]
    with pytest.raises(DatasetError, match=r"segments/1\.png: expected an image, found no such file"):
        CocoDataset(split, "panoptic", True, None, 0)[0]


def test_a_segment_that_its_png_lacks_is_dropped(write_split: Callable[..., Any]) -> None:
    segments = [(1, CAT, [0, 0, 20, 10]), (2, DOG, [0, 0, 5, 5])]
    split = write_split([BLANK], panoptic=[panoptic(1, segments)], id_maps=[np.ones((10, 20), dtype=int)])
    assert CocoDataset(split, "panoptic", True, None, 0)[0].target.labels.tolist() == [0]


def test_augmentation_depends_on_seed_epoch_and_index_alone(write_split: Callable[..., Any], noise: Callable[..., Any]) -> None:
    split = write_split([noise(4, 6, seed) for seed in range(32)], [])
    transform = training_transform(AugmentationConfig(0.5, None, None))

    def flips(dataset: CocoDataset, epoch: int, order: list[int]) -> list[bool]:
        plain = CocoDataset(split, "instances", False, None, 0)
        return [not torch.equal(dataset[(epoch, index)].image, plain[index].image) for index in order]

    dataset = CocoDataset(split, "instances", False, transform, seed=1)
    forwards = flips(dataset, 0, list(range(32)))
    assert 6 < sum(forwards) < 26
    torch.manual_seed(99)
    assert flips(pickle.loads(pickle.dumps(dataset)), 0, list(range(31, -1, -1))) == forwards[::-1]
    assert flips(dataset, 1, list(range(32))) != forwards
    assert flips(CocoDataset(split, "instances", False, transform, seed=2), 0, list(range(32))) != forwards


def test_reading_leaves_the_global_random_numbers_alone(write_split: Callable[..., Any]) -> None:
    dataset = CocoDataset(
        write_split([BLANK], []), "instances", False, training_transform(AugmentationConfig(0.5, None, None)), 0
    )
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dataset[0]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 9, "category_id": CAT, "bbox": [0, 0, 1, 1]}, r"annotations\.image_id: .* found 9"),
        ({"image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}, r"annotations\.category_id: .* found 3"),
        ({"image_id": 1, "category_id": CAT}, r"annotations\.bbox: expected 'bbox'"),
        ({"image_id": 1, "category_id": CAT, "bbox": [0, 0, 1]}, r"annotations\.bbox: malformed"),
        ({"image_id": 1, "category_id": CAT, "bbox": [0, 0, float("nan"), 1]}, r"annotations\.bbox: expected finite"),
    ],
)
def test_malformed_annotations_name_file_and_field(
    write_split: Callable[..., Any], annotation: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=r"instances\.json: " + message):
        CocoDataset(write_split([BLANK], [annotation]), "instances", True, None, 0)


@pytest.mark.parametrize("segmentation", [None, [], "left out"])
def test_an_object_with_only_a_box_keeps_it_with_a_mask_without_pixels(
    write_split: Callable[..., Any], segmentation: Any
) -> None:
    box_alone = instance(1, CAT, [2, 2, 4, 4], segmentation=segmentation)
    if segmentation == "left out":
        del box_alone["segmentation"]
    with_mask = instance(1, DOG, [8, 1, 4, 3], segmentation=polygon(8, 1, 4, 3))
    target = CocoDataset(write_split([BLANK], [box_alone, with_mask]), "instances", True, None, 0)[0].target
    assert target.labels.tolist() == [0, 1]
    assert target.masks is not None
    assert target.masks.sum((1, 2)).tolist() == [0, 12]


def test_a_mask_that_a_crop_empties_is_dropped_with_its_box(write_split: Callable[..., Any]) -> None:
    # The polygon covers the left quarter of its box, and the box alone of the other object the same place.
    mask_at_the_left = instance(1, DOG, [0, 0, 20, 10], segmentation=polygon(0, 0, 5, 10))
    box_alone = instance(1, CAT, [0, 0, 20, 10], segmentation=[])
    split = write_split([BLANK], [mask_at_the_left, box_alone])

    def right_half(image: Any, boxes: Any, masks: Any, rng: Any) -> Any:
        return tuple(crop(part, 0, 10, 10, 10) for part in (image, boxes, masks))

    target = CocoDataset(split, "instances", True, right_half, 0)[0].target  # type: ignore[arg-type]
    assert target.labels.tolist() == [0], "the box of the other object would have a mask without pixels"
    assert target.masks is not None
    assert target.masks.shape == (1, 10, 10)


def test_malformed_segmentations_name_the_file(write_split: Callable[..., Any]) -> None:
    for segmentation in ("nothing", {"size": [10, 20]}, {"size": [5, 5], "counts": [25]}, [["a"] * 6]):
        split = write_split([BLANK], [instance(1, CAT, [0, 0, 5, 5], segmentation=segmentation)])
        with pytest.raises(DatasetError, match=r"instances\.json: annotations\.segmentation: expected"):
            CocoDataset(split, "instances", True, None, 0)[0]


def test_malformed_files_are_named(write_split: Callable[..., Any]) -> None:
    split = write_split([BLANK], [])
    content = json.loads(split.instances.read_text())
    for broken, message in (
        ("[1", "not valid JSON"),
        ("[]", "images: expected a list"),
        (json.dumps({**content, "categories": None}), "categories: expected a list"),
        (json.dumps({**content, "images": []}), "images: expected at least one image"),
        (json.dumps({**content, "images": content["images"] * 2}), "images: expected every id once"),
        (json.dumps({**content, "images": [{"id": 1, "file_name": "1.png"}]}), "images: expected 'height'"),
        (json.dumps({**content, "categories": content["categories"] * 2}), "categories: .*expected every id once"),
    ):
        split.instances.write_text(broken)
        with pytest.raises(DatasetError, match=rf"instances\.json: {message}"):
            CocoDataset(split, "instances", False, None, 0)
    with pytest.raises(DatasetError, match="expected a file of panoptic annotations"):
        CocoDataset(split, "panoptic", False, None, 0)


@pytest.mark.parametrize("name", ["../images/1.png", "/etc/passwd"])
def test_file_names_that_leave_the_folder_are_refused(write_split: Callable[..., Any], name: str) -> None:
    with pytest.raises(DatasetError, match=r"instances\.json: images\.file_name: expected a relative path without '\.\.'"):
        CocoDataset(write_split([(name, (10, 20))], []), "instances", False, None, 0)


def test_a_missing_image_is_named(write_split: Callable[..., Any], tmp_path: Path) -> None:
    dataset = CocoDataset(write_split([("none.jpg", (10, 20))], []), "instances", False, None, 0)
    with pytest.raises(DatasetError, match=str(tmp_path / "images" / "none.jpg")):
        dataset[0]
