"""Decides on the class and the instance of each pixel, given the label map of the panoptic head."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_core.model.upsnet.panoptic_head import VOID


def decide(labels: Tensor, semantic: Tensor, channels: Tensor, num_stuff: int, smallest_stuff: int) -> tuple[Tensor, Tensor]:
    """Returns the class of each pixel, which is a semantic channel or VOID, and its instance, both int64 [H, W].

    An instance becomes stuff if the semantic head gives at least half of its pixels one stuff class. After that, a stuff class
    with fewer than `smallest_stuff` pixels becomes VOID. An instance is 0 for none, else its position, counted from 1, among the
    instances with at least one pixel in `labels`.

    labels [H, W]: the result of `label_map`. semantic [H, W]: the semantic channel with the highest logit at each pixel.
    channels [K]: the semantic channel of each instance's class.
    """
    classes, instances = labels.clone(), torch.zeros_like(labels)
    present = labels[labels >= num_stuff].bincount().nonzero()[:, 0]
    for position, label in enumerate(present.tolist(), start=1):
        region = labels == label
        counts = semantic[region].bincount(minlength=num_stuff + 1)
        most = int(counts.argmax())
        if most < num_stuff and 2 * int(counts[most]) >= int(counts.sum()):
            classes[region] = most
        else:
            classes[region] = channels[label - num_stuff]
            instances[region] = position
    is_stuff = (classes >= 0) & (classes < num_stuff)
    areas = classes[is_stuff].bincount(minlength=num_stuff)
    small = torch.zeros_like(is_stuff)
    small[is_stuff] = (areas < smallest_stuff)[classes[is_stuff]]
    return classes.masked_fill(small, VOID), instances
