"""Flips, resizes and crops change an image, its boxes and its masks in the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import tv_tensors

from detr_core.config import ConfigError
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.config import AugmentationConfig, CropConfig, ResizeConfig
from detr_core.data.transforms import EvaluationTransform, evaluation_transform, nearest, resized, scaled, training_transform

RNG = np.random.default_rng(0)  # where chance has no say in what comes out
PIXELS = tv_tensors.BoundingBoxFormat.XYXY


def parts(height: int, width: int, boxes: list[list[float]]) -> Any:
    """Returns a random picture and boxes with the masks that fill them."""
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[round(top) : round(bottom), round(left) : round(right)] = True
    return (
        image,
        tv_tensors.BoundingBoxes(torch.tensor(boxes).view(-1, 4), format=PIXELS, canvas_size=(height, width)),
        tv_tensors.Mask(masks),
    )


def test_a_flip_mirrors_image_boxes_and_masks() -> None:
    image, boxes, masks = parts(10, 20, [[2, 1, 6, 4]])
    flipped = training_transform(AugmentationConfig(1.0, None, None))(image, boxes, masks, RNG)
    assert torch.equal(flipped[0], image.flip(-1))
    assert flipped[1].tolist() == [[14, 1, 18, 4]]
    assert torch.equal(flipped[2], masks.flip(-1))
    unflipped = training_transform(AugmentationConfig(0.0, None, None))(image, boxes, None, RNG)
    assert torch.equal(unflipped[0], image)
    assert unflipped[2] is None


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((640, 427), 800, 1333, (1199, 800)),
        ((333, 500), 800, 1333, (800, 1201)),
        ((300, 600), 800, 1333, (666, 1332)),  # the short side gives way to the longest
        ((375, 1242), 800, 1333, (402, 1331)),
        ((800, 900), 800, 1333, (800, 900)),
        ((480, 640), 400, None, (400, 533)),
        ((1, 5000), 800, 1333, (1, 5000)),
    ],
)
def test_images_are_scaled_to_the_published_sizes(
    size: tuple[int, int], short: int, longest: int | None, expected: tuple[int, int]
) -> None:
    assert scaled(size, short, longest) == expected


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 1000))
def test_sizes_turn_with_the_image(height: int, width: int, short: int) -> None:
    h, w = scaled((height, width), short, 1333)
    assert (w, h) == scaled((width, height), short, 1333)
    assert (h <= w) == (height <= width) or h == w


def test_resize_moves_boxes_and_masks() -> None:
    image, boxes, masks = parts(30, 60, [[10, 5, 40, 20], [0, 0, 60, 30]])
    transform = evaluation_transform(ResizeConfig((60,), 1333))
    small, moved, grown = transform(image, boxes, masks, RNG)
    assert small.shape == (3, 60, 120)
    assert small.dtype == torch.uint8
    assert moved.tolist() == [[20, 10, 80, 40], [0, 0, 120, 60]]
    assert grown is not None
    assert torch.equal(grown[0].nonzero().amin(0), torch.tensor([10, 20]))
    assert torch.equal(grown[0].nonzero().amax(0), torch.tensor([39, 79]))
    assert resized((30, 60), transform.resize) == (60, 120)


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 1300), st.integers(1, 1300))
def test_masks_are_resized_as_torch_does(height: int, width: int, new_height: int, new_width: int) -> None:
    # One row and one column of distinct numbers tell where every pixel comes from.
    for shape, size in (((1, height, 1), (new_height, 1)), ((1, 1, width), (1, new_width))):
        numbers = torch.arange(max(shape), dtype=torch.float32).view(shape)
        expected = torch.nn.functional.interpolate(numbers[None], size, mode="nearest")[0]
        assert torch.equal(nearest(tv_tensors.Mask(numbers), size).as_subclass(torch.Tensor), expected)


def test_no_masks_stay_none_of_the_new_size() -> None:
    assert nearest(tv_tensors.Mask(torch.zeros(0, 4, 6, dtype=torch.bool)), (2, 3)).shape == (0, 2, 3)


def test_evaluation_without_resize_changes_nothing() -> None:
    image, boxes, masks = parts(5, 6, [[1, 1, 3, 3]])
    same = EvaluationTransform(None)(image, boxes, masks, RNG)
    assert all(torch.equal(before, after) for before, after in zip((image, boxes, masks), same, strict=True))
    assert resized((5, 6), None) == (5, 6)


def test_evaluation_takes_one_size() -> None:
    with pytest.raises(ConfigError, match=r"resize\.short: expected one size for evaluation"):
        evaluation_transform(ResizeConfig((400, 500), 1333))


@pytest.mark.parametrize("seed", range(20))
def test_crop_clips_boxes_and_masks_alike(seed: int) -> None:
    # No resize before: a short side of 40 stays. The pixels tell where the crop was.
    crop = CropConfig(1.0, (40,), 10, 50)
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    image = torch.stack([rows, columns, rows * 0]).to(torch.uint8)
    _, boxes, masks = parts(40, 60, [[5, 5, 25, 30], [50, 30, 60, 40], [0, 0, 60, 40]])
    cropped, clipped, cut = training_transform(AugmentationConfig(0.0, crop, None))(
        image, boxes, masks, np.random.default_rng(seed)
    )
    _, height, width = cropped.shape
    assert 10 <= height <= 40
    assert 10 <= width <= 50
    top, left = int(cropped[0, 0, 0]), int(cropped[1, 0, 0])
    assert torch.equal(cropped, image[:, top : top + height, left : left + width])
    assert cut is not None
    for box, mask in zip(clipped.tolist(), cut, strict=True):
        if mask.any():
            x0, y0, x1, y1 = box
            pixels = mask.nonzero()
            assert [x0, y0] == pixels.amin(0).flip(0).tolist()
            assert [x1, y1] == (pixels.amax(0).flip(0) + 1).tolist()
        else:
            assert box[0] >= box[2] or box[1] >= box[3]


def test_an_image_smaller_than_the_crop_is_kept_whole() -> None:
    crop = CropConfig(1.0, (8,), 100, 200)
    cropped, _, _ = training_transform(AugmentationConfig(0.0, crop, None))(*parts(8, 12, []), RNG)
    assert cropped.shape == (3, 8, 12)


def test_objects_that_a_crop_leaves_out_are_dropped(write_split: Callable[..., Any], noise: Callable[..., Any]) -> None:
    corners = [[0, 0, 4, 4], [36, 0, 4, 4], [0, 36, 4, 4], [36, 36, 4, 4], [15, 15, 10, 10]]
    # The last object's box spans the image, but its mask is one pixel in the first corner.
    segmentations = [[[x, y, x + w, y, x + w, y + h, x, y + h]] for x, y, w, h in corners] + [[[0, 0, 1, 0, 1, 1, 0, 1]]]
    annotations = [
        {"image_id": 1, "category_id": 2, "bbox": box, "segmentation": segmentation}
        for box, segmentation in zip([*corners, [0, 0, 40, 40]], segmentations, strict=True)
    ]
    split = write_split([noise(40, 40)], annotations)
    transform = training_transform(AugmentationConfig(0.0, CropConfig(1.0, (40,), 20, 24), None))
    counts = set()
    for epoch in range(12):
        boxes_only = CocoDataset(split, "instances", False, transform, 0)[(epoch, 0)].target
        target = CocoDataset(split, "instances", True, transform, 0)[(epoch, 0)].target
        assert target.masks is not None
        assert target.masks.flatten(1).any(dim=1).all()
        assert target.masks.shape[1:] == target.size
        for remaining in (target, boxes_only):
            assert (remaining.boxes[:, 2:] > 0).all()
            assert (remaining.boxes >= 0).all()
            assert (remaining.boxes <= 1).all()
            assert len(remaining.labels) == len(remaining.boxes)
        assert len(boxes_only.boxes) >= len(target.boxes)
        counts.add((len(target.boxes), len(boxes_only.boxes)))
    assert any(with_masks < without for with_masks, without in counts)


def test_the_published_recipe_runs() -> None:
    scales = tuple(range(48, 81, 4))
    config = AugmentationConfig(0.5, CropConfig(0.5, (40, 50, 60), 38, 60), ResizeConfig(scales, 133))
    shapes = set()
    for seed in range(30):
        image, boxes, masks = training_transform(config)(*parts(48, 64, [[3, 4, 30, 40]]), np.random.default_rng(seed))
        assert masks is not None
        assert image.shape[1:] == masks.shape[1:]
        assert boxes.canvas_size == tuple(image.shape[1:])
        assert max(image.shape[1:]) <= 134
        shapes.add(tuple(image.shape))
    assert len(shapes) > 10
