"""UPSNet's panoptic head (section 3 of arXiv 1901.03784), which has no parameters: one logit for each segment and pixel.

In shapes, S is the number of stuff classes, K the number of instances, and C the number of semantic channels: the stuff classes,
then the thing classes. A label map holds channels of the panoptic logits: 0 to S - 1 for stuff, S + k for instance k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detr_core.model.regions.targets import NO_CLASS


def panoptic_logits(semantic_logits: Tensor, parts: Tensor, placed: Tensor, num_stuff: int) -> Tensor:
    """Returns the logits [S + K + 1, H, W] of the stuff classes, the instances and 'unknown'.

    A pixel is unknown if its class is a thing of which no instance was found.

    semantic_logits [C, H, W]. parts, placed [K, H, W]: see `semantic_parts` and `placed_masks`.
    """
    things = semantic_logits[num_stuff:].amax(0)
    # A part is 0 outside of its box, and these zeros take part in the maximum. Where at least one instance's box does
    # not reach, at least 0 is therefore subtracted, as in the authors' results. Without instances nothing is subtracted.
    explained = parts.amax(0) if len(parts) else torch.zeros_like(things)
    return torch.cat([semantic_logits[:num_stuff], parts + placed, (things - explained)[None]])


def label_map(logits: Tensor) -> Tensor:
    """Returns the channel with the highest logit at each pixel, int64 [H, W]; NO_CLASS where that is the last one, 'unknown'."""
    channels = logits.argmax(0)
    return channels.masked_fill(channels == len(logits) - 1, NO_CLASS)
