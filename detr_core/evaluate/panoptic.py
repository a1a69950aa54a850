"""Merges the masks of the queries into a panoptic map, where each pixel belongs to at most one segment (paper, section 4.4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detr_core.evaluate.config import MergingConfig
from detr_core.evaluate.masks import over_image
from detr_core.structures import Segment


def kept_queries(logits: Tensor, threshold: float) -> Tensor:
    """Returns which queries take part in the merging, bool [..., Q]. Only their masks need to be computed.

    logits [..., Q, C+1]. A query is kept if its best class is not no-object and has a score above `threshold`.
    """
    scores, labels = logits.float().softmax(-1).max(-1)
    return (labels != logits.shape[-1] - 1) & (scores > threshold)


def merge(
    labels: Tensor,
    mask_logits: Tensor,
    padded_size: tuple[int, int],
    size: tuple[int, int],
    original_size: tuple[int, int],
    isthing: Sequence[bool],
    config: MergingConfig,
) -> tuple[np.ndarray, list[Segment]]:
    """Returns the panoptic map of one image from its kept queries. Each pixel goes to the mask with the largest logit.

    labels [K]: class index of each kept query, in the order of the queries. mask_logits [K, h, w], padded_size, size: see
    `over_image`. isthing: whether each class is a thing, by class index.
    Returns (id_map [*original_size] int32, segments), where segment i has id i. Without segments the map holds zeros that have
    no meaning.

    The masks of a stuff class form one segment, and the pixels of segments of `config.smallest` pixels or fewer go to other
    segments. The mode 'published' does this as the published code does, which treats a merged mask as an empty segment and so
    undoes the merging: its pixels go to the mask with the next largest logit. The mode 'paper' keeps stuff merged.
    """
    published = config.mode == "published"
    masks = over_image(mask_logits, padded_size, size)
    labels = labels.cpu()
    owner = _owners(labels, isthing)
    while True:
        id_map = _winners(masks, owner, original_size)
        area = np.bincount(id_map.ravel(), minlength=len(labels))[: len(labels)]
        large = torch.from_numpy(area > config.smallest)
        if not published:
            large = large[owner]
        if large.all():
            break
        masks, labels = masks[large.to(masks.device)], labels[large]
        owner = torch.arange(len(labels)) if published else _owners(labels, isthing)
    owners, position = np.unique(owner.numpy(), return_inverse=True)
    if len(owners) == 0:
        return id_map, []
    segments = [
        Segment(id=i, isthing=bool(isthing[label]), category_id=label, area=int(area[k]))
        for i, (k, label) in enumerate(zip(owners.tolist(), labels[owners].tolist(), strict=True))
    ]
    return position.astype(np.int32)[id_map], segments


def _owners(labels: Tensor, isthing: Sequence[bool]) -> Tensor:
    """Returns for each mask the index of the first mask of its segment: its own for things, the first of its class for stuff."""
    first: dict[int, int] = {}
    return torch.tensor(
        [k if isthing[label] else first.setdefault(label, k) for k, label in enumerate(labels.tolist())], dtype=torch.int64
    )


def _winners(masks: Tensor, owner: Tensor, original_size: tuple[int, int]) -> np.ndarray:
    if len(masks) == 0:
        return np.zeros(original_size, np.int32)
    ids = owner.to(masks.device, torch.int32)[masks.argmax(0)].cpu().numpy()
    height, width = original_size
    # Nearest-neighbour resizing is done by Pillow, as in the published code, because other libraries round differently.
    return np.array(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))
