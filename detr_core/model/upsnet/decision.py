"""Decides on the class and the instance of each pixel, given the label map of the panoptic head."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_core.model.regions.targets import NO_CLASS


def decide(
    labels: Tensor, semantic_logits: Tensor, channels: Tensor, num_stuff: int, smallest_stuff: int
) -> tuple[Tensor, Tensor]:
    """Returns the semantic channel of each pixel, or NO_CLASS, and its instance, both int64 [H, W].

    An instance becomes stuff if the semantic head gives at least half of its pixels one stuff class. After that, the pixels of a
    stuff class with fewer than `smallest_stuff` pixels become NO_CLASS. An instance is 0 for none, else its position, counted
    from 1, among the instances with at least one pixel in `labels`.

    labels [H, W]: the result of `label_map`. semantic_logits [C, H, W]. channels [K]: the semantic channel of each instance's
    class.
    """
    pixels = labels >= num_stuff
    pairs = (labels[pixels] - num_stuff) * len(semantic_logits) + semantic_logits.argmax(0)[pixels]
    counts = pairs.bincount(minlength=len(channels) * len(semantic_logits)).view(len(channels), len(semantic_logits))
    areas, (largest, most) = counts.sum(1), counts.max(1)
    becomes_stuff = (most < num_stuff) & (2 * largest >= areas)
    # Both tables have an entry for each label, and a last one for the label NO_CLASS, which is -1.
    of_instances = (torch.where(becomes_stuff, most, channels), (areas > 0).cumsum(0).masked_fill(becomes_stuff, 0))
    class_of = torch.cat([torch.arange(num_stuff, device=labels.device), of_instances[0], labels.new_tensor([NO_CLASS])])
    instance_of = torch.cat([labels.new_zeros(num_stuff), of_instances[1], labels.new_zeros(1)])
    classes, instances = class_of[labels], instance_of[labels]
    is_stuff = (classes >= 0) & (classes < num_stuff)
    small = classes[is_stuff].bincount(minlength=num_stuff) < smallest_stuff
    of_small = torch.zeros_like(is_stuff)
    of_small[is_stuff] = small[classes[is_stuff]]
    return classes.masked_fill(of_small, NO_CLASS), instances
