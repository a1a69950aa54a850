"""The conversion of mask logits at the network's stride to masks of the original image."""

from __future__ import annotations

import torch

from detr_core.evaluate.masks import instance_masks, over_image


def test_padding_is_cropped_before_the_mask_is_resized() -> None:
    # The image fills the left half of the padded extent and its object the image's left half: the padded extent's first quarter.
    logits = torch.full((1, 4, 8), -5.0)
    logits[..., :2] = 5.0
    mask = instance_masks(logits, padded_size=(16, 32), size=(16, 16), original_size=(32, 32))
    assert mask.dtype == torch.bool
    assert mask[0, :, :14].all()
    assert not mask[0, :, 18:].any()


def test_threshold_is_a_probability() -> None:
    logits = torch.tensor([0.3, 0.6, 0.9]).logit()[:, None, None].expand(3, 2, 2)
    masks = instance_masks(logits, (4, 4), (4, 4), (4, 4), threshold=0.7)
    assert masks.flatten(1).all(1).tolist() == [False, False, True]


def test_no_masks_stay_no_masks_of_the_image_size() -> None:
    assert over_image(torch.zeros(0, 1, 1), (8, 8), (6, 7)).shape == (0, 6, 7)
    assert instance_masks(torch.zeros(0, 1, 1), (8, 8), (6, 7), (12, 14)).shape == (0, 12, 14)
