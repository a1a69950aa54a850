"""The merging of masks into a panoptic map."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from detr_core.evaluate.config import MergingConfig
from detr_core.evaluate.panoptic import kept_queries, merge
from detr_core.structures import Segment

Mode = Literal["published", "paper"]
ISTHING = [True, True, False, False]


def merged(labels: list[int], masks: Tensor, mode: Mode, smallest: int = 4) -> tuple[np.ndarray, list[Segment]]:
    size = (int(masks.shape[1]), int(masks.shape[2]))
    return merge(torch.tensor(labels, dtype=torch.int64), masks, size, size, size, ISTHING, MergingConfig(0.85, smallest, mode))


def test_queries_above_the_threshold_except_no_object_are_kept() -> None:
    probabilities = torch.tensor([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.05, 0.05, 0.9], [0.01, 0.98, 0.01]])
    assert kept_queries(probabilities.log(), 0.85).tolist() == [True, False, False, True]


def test_each_pixel_goes_to_the_mask_with_the_largest_logit() -> None:
    masks = torch.zeros(2, 4, 6)
    masks[0, :, :4] = 3.0
    masks[1, :, 2:] = 4.0
    for mode in ("published", "paper"):
        id_map, segments = merged([0, 2], masks, mode)
        assert id_map.tolist() == [[0, 0, 1, 1, 1, 1]] * 4
        assert segments == [
            {"id": 0, "isthing": True, "category_id": 0, "area": 8},
            {"id": 1, "isthing": False, "category_id": 2, "area": 16},
        ]


def test_two_things_of_one_class_stay_apart_and_stuff_is_merged() -> None:
    masks = torch.zeros(4, 2, 16)
    for k in range(4):
        masks[k, :, 4 * k : 4 * k + 4] = 1.0
    id_map, segments = merged([0, 2, 0, 2], masks, "paper")
    assert id_map[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [1] * 4
    assert [(s["category_id"], s["area"]) for s in segments] == [(0, 8), (2, 16), (0, 8)]


def test_published_merging_undoes_itself_when_the_merged_mask_is_taken_for_an_empty_segment() -> None:
    masks = torch.zeros(3, 2, 12)
    masks[0, :, :4] = 3.0  # a thing that is also the second choice on the right
    masks[0, :, 8:] = 1.0
    masks[1, :, 4:8] = 3.0  # stuff, in two masks
    masks[2, :, 8:] = 3.0
    id_map, _ = merged([0, 2, 2], masks, "published")
    assert id_map[0].tolist() == [0] * 4 + [1] * 4 + [0] * 4
    id_map, _ = merged([0, 2, 2], masks, "paper")
    assert id_map[0].tolist() == [0] * 4 + [1] * 8


def test_pixels_of_a_small_segment_go_to_the_others() -> None:
    masks = torch.zeros(2, 4, 4)
    masks[0] = 1.0
    masks[1, 0] = 2.0  # 4 pixels: not more than `smallest`
    for mode in ("published", "paper"):
        id_map, segments = merged([1, 0], masks, mode)
        assert not id_map.any()
        assert segments == [{"id": 0, "isthing": True, "category_id": 1, "area": 16}]
        assert len(merged([1, 0], masks, mode, smallest=3)[1]) == 2


def test_without_kept_queries_or_masks_the_map_is_empty() -> None:
    for mode in ("published", "paper"):
        for labels in ([], [2, 2], [0, 1]):
            id_map, segments = merged(labels, torch.zeros(len(labels), 2, 2), mode)
            assert id_map.shape == (2, 2)
            assert not id_map.any()
            assert segments == []


def test_padding_is_cropped_before_the_map_is_resized() -> None:
    masks = torch.zeros(2, 4, 8)
    masks[0, :, :2] = 1.0
    masks[1, :, 2:] = 1.0
    config = MergingConfig(0.85, 4, "published")
    id_map, _ = merge(torch.tensor([0, 1]), masks, (16, 32), (16, 16), (32, 32), ISTHING, config)
    assert (id_map[:, :14] == 0).all()
    assert (id_map[:, 18:] == 1).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["published", "paper"]), st.integers(0, 12), st.integers(0, 40))
def test_segments_describe_the_map(seed: int, mode: Mode, queries: int, smallest: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, queries).tolist()
    masks = torch.from_numpy(rng.standard_normal((queries, 6, 7), dtype=np.float32))
    original = (int(rng.integers(5, 40)), int(rng.integers(5, 40)))
    config = MergingConfig(0.85, smallest, mode)
    id_map, segments = merge(torch.tensor(labels, dtype=torch.int64), masks, (24, 28), (20, 25), original, ISTHING, config)
    assert id_map.shape == original
    if not segments:
        assert not id_map.any()
        return
    ids, areas = np.unique(id_map, return_counts=True)
    assert ids.tolist() == [segment["id"] for segment in segments] == list(range(len(segments)))
    assert areas.tolist() == [segment["area"] for segment in segments]
    assert areas.min() > smallest
    stuff = [segment["category_id"] for segment in segments if not segment["isthing"]]
    assert len(stuff) == len(set(stuff)) or mode == "published"
