"""What happens to an image and its targets before the network: the published augmentation (paper, section A.4), on torchvision's
transforms, which move boxes and masks along with the image."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2 import query_size

from detr_core.config import require
from detr_core.data.config import AugmentationConfig, CropConfig, ResizeConfig


class Transform(Protocol):
    """image: tv_tensors.Image uint8 [3, H, W]; boxes: tv_tensors.BoundingBoxes xyxy; masks: tv_tensors.Mask or None.

    Random numbers come from torch's CPU generator alone. Objects may be left with an empty box or mask.
    """

    def __call__(self, image: Tensor, boxes: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]: ...


def training_transform(config: AugmentationConfig) -> Transform:
    """Flip, crop, resize: those of them that `config` asks for, in this order."""
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip(config.flip)]
    if config.crop is not None:
        crop = [_Resize(config.crop.before, None), _SizeCrop(config.crop)]
        steps.append(v2.RandomApply(crop, p=config.crop.probability))
    if config.resize is not None:
        steps.append(_Resize(config.resize.short, config.resize.longest))
    compose: Transform = v2.Compose(steps)
    return compose


class EvaluationTransform:
    """Resizes every image to `resize.short` (one size), or leaves it as it is. `resized` says what comes out."""

    def __init__(self, resize: ResizeConfig | None) -> None:
        self.resize = resize
        if resize is not None:
            require(len(resize.short) == 1, "resize.short", "one size for evaluation", list(resize.short))

    def __call__(self, image: Tensor, boxes: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.resize is None:
            return image, boxes, masks
        moved: tuple[Tensor, Tensor, Tensor | None] = _Resize(self.resize.short, self.resize.longest)(image, boxes, masks)
        return moved


def evaluation_transform(resize: ResizeConfig | None) -> EvaluationTransform:
    """The transform for validation and evaluation. Raises ConfigError where `resize.short` holds more than one size."""
    return EvaluationTransform(resize)


def resized(size: tuple[int, int], resize: ResizeConfig | None) -> tuple[int, int]:
    """The (h, w) that evaluation gives the network for an image of `size` (h, w)."""
    return size if resize is None else scaled(size, resize.short[0], resize.longest)


def scaled(size: tuple[int, int], short: int, longest: int | None) -> tuple[int, int]:
    """(h, w) of an image of `size` (h, w) whose short side becomes `short`, or less where the long side would pass `longest`.

    Rounded as published, since figures of released weights depend on it.
    """
    low, high = min(size), max(size)
    if longest is not None and high / low * short > longest:
        short = max(1, round(longest * low / high))
    long = high if low == short else int(short * high / low)
    return (short, long) if size[0] <= size[1] else (long, short)


class _Resize(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """To a short side drawn from `shorts`."""

    def __init__(self, shorts: tuple[int, ...], longest: int | None) -> None:
        super().__init__()
        self.shorts = shorts
        self.longest = longest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        short = self.shorts[_draw(0, len(self.shorts) - 1)]
        return {"size": list(scaled(query_size(flat_inputs), short, self.longest))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.resize(inpt, params["size"], antialias=True)


class _SizeCrop(v2.Transform):  # type: ignore[misc]
    """A random crop whose sides are drawn between `smallest` and `largest`, as far as the image goes."""

    def __init__(self, config: CropConfig) -> None:
        super().__init__()
        self.config = config

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        h, w = query_size(flat_inputs)
        width, height = (_draw(min(self.config.smallest, side), min(self.config.largest, side)) for side in (w, h))
        return {"top": _draw(0, h - height), "left": _draw(0, w - width), "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.crop(inpt, **params)


def _draw(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))
