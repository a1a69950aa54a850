"""Golden cases of UPSNet's panoptic head: this project must compute the same numbers as the authors' modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detr_core.model.regions.targets import NO_CLASS
from detr_core.model.upsnet.decision import decide
from detr_core.model.upsnet.loss import panoptic_loss
from detr_core.model.upsnet.panoptic_head import label_map, panoptic_logits
from detr_core.model.upsnet.placement import placed_masks, semantic_parts
from detr_core.model.upsnet.removal import not_overlapping
from detr_core.model.upsnet.target import panoptic_target
from tests.golden_cases import cases, close

GOLDEN_VOID = 255


def channels_of(golden: Any, classes: np.ndarray) -> Tensor:
    """Returns the semantic channels of classes that are counted from 1, where 0 is the background."""
    return torch.from_numpy(classes) + int(golden["num_stuff"]) - 1


def equal(ours: Tensor, golden: np.ndarray) -> None:
    np.testing.assert_array_equal(ours.masked_fill(ours == NO_CLASS, GOLDEN_VOID), golden)


@cases("upsnet_head*.npz")
def test_each_step_of_a_panoptic_segmentation_equals_the_reference(path: Path) -> None:
    golden = np.load(path)
    num_stuff = int(golden["num_stuff"])
    images = [name.removeprefix("boxes_") for name in golden if name.startswith("boxes_")]
    assert images
    for i in images:
        semantic, boxes, scores, mask_logits = (
            torch.from_numpy(golden[f"{name}_{i}"]) for name in ("semantic_logits", "boxes", "scores", "mask_logits")
        )
        channels = channels_of(golden, golden[f"classes_{i}"])
        placed = placed_masks(mask_logits, boxes, (semantic.shape[1], semantic.shape[2]))
        kept = not_overlapping(scores, channels, placed, float(golden["overlap_threshold"]))
        logits = panoptic_logits(semantic, semantic_parts(semantic, channels[kept], boxes[kept]), placed[kept], num_stuff)
        if len(boxes):
            np.testing.assert_array_equal(kept, golden[f"keep_{i}"])
            close(placed[kept], golden[f"placed_{i}"])
            close(logits, golden[f"panoptic_logits_{i}"])
        labels = label_map(logits)
        equal(labels, golden[f"label_map_{i}"])
        smallest = int(golden["stuff_area_limit"])
        classes, instances = decide(labels, semantic, channels[kept], num_stuff, smallest)
        equal(classes, golden[f"final_classes_{i}"])
        np.testing.assert_array_equal(instances, golden[f"final_instances_{i}"])


@cases("upsnet_head*.npz")
def test_the_panoptic_loss_and_its_gradient_equal_the_reference(path: Path) -> None:
    golden = np.load(path)
    num_stuff, drawn = int(golden["num_stuff"]), golden["train_kept"]
    semantic = torch.from_numpy(golden["train_semantic_logits"])
    boxes = torch.from_numpy(golden["train_boxes"][drawn]) / 4  # pixels of the map, which has stride 4
    channels = channels_of(golden, golden["train_classes"][drawn])
    mask_logits = torch.from_numpy(golden["train_mask_logits"]).requires_grad_()
    placed = placed_masks(mask_logits, boxes, (semantic.shape[1], semantic.shape[2]))
    logits = panoptic_logits(semantic, semantic_parts(semantic, channels, boxes), placed, num_stuff)
    close(logits.detach(), golden["train_panoptic_logits"])

    wanted = torch.from_numpy(golden["train_semantic_target"]).long()
    masks = torch.from_numpy(golden["train_masks"][drawn]).bool()
    target = panoptic_target(wanted.masked_fill(wanted == GOLDEN_VOID, NO_CLASS), masks, num_stuff)
    equal(target, golden["train_target"])
    loss = panoptic_loss(logits, target)
    close(loss.detach(), golden["train_loss"])
    loss.backward()
    close(mask_logits.grad, golden["train_grad_mask_logits"])
