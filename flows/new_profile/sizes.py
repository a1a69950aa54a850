"""Chooses image sizes, numbers of epochs and of queries for a dataset from its statistics, for `python -m flows.adopt`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, MutableMapping
from math import ceil, isqrt
from typing import Any

from detr_core.check.statistics import Statistics, quantile
from detr_core.data.annotations import Targets
from detr_core.model.spec import kind_of
from detr_core.model.transformer.config import MOST_QUERIES

Content = MutableMapping[str, Any]

# The published recipe has these sizes for images with a short side of 800 pixels; they are scaled for other short sides.
SHORT = 800
RESIZE = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
BEFORE_CROP, CROP = (400, 500, 600), (384, 600)
ENLARGED = 800 / 480  # the factor by which the published recipe enlarges COCO's images of 640 x 480 pixels

# The demo's small backbone is made for objects of about 28 pixels and images of 96 to 256 pixels; its stride is 12 pixels.
SMALL_OBJECT, SMALL_IMAGE, SMALL_STRIDE = 28, (96, 256), 12

GRAY = (124, 116, 104)  # ImageNet's mean color, with which the study `instance-count` fills masked cells


def queries(statistics: Mapping[str, Statistics]) -> int:
    """Returns a number of queries: 1.5 times the largest number of objects in an image, rounded up to a multiple of 10.

    It is at most the number that a detector can have; the check then names the images with more objects.
    """
    largest_number = max(split.most_objects for split in statistics.values())
    return min(MOST_QUERIES, max(10, 10 * ceil(1.5 * largest_number / 10)))


def fit(
    content: Content,
    studies: Content,
    statistics: Mapping[str, Statistics],
    masks: Targets | None,
    tuned: bool,
) -> None:
    """Sets the sizes in a profile's content: resize, crop, epochs, batch, positions, the grid of `instance-count`.

    content, studies: the contents of the profile's two files. statistics: of 'train' and 'val'. masks: the targets of the mask
    head, None without one. tuned: whether training starts from a trained detector, which then keeps the image sizes of its
    training.
    """
    train = statistics["train"]
    images = sum(train.objects.values())
    small = content["detector"]["backbone"]["name"] == "small"
    short, longest = _small_size(train) if small else _resnet_size(train, tuned)
    detection = content["train_detection"]
    detection["targets"] = masks or "instances"
    recipe_batch = detection["batch_size"]
    detection["batch_size"], detection["accumulation"] = max(1, min(16 if small else 8, images // 8)), 1
    if detection["optimizer"].get("kind") == "sgd":  # whose rates are those of the recipe's batch, and diverge with a smaller one
        _scale_rates(detection["optimizer"], detection["batch_size"] / recipe_batch)
    default = kind_of(content["detector"]["kind"]).length
    duration = default.small if small else default.tuned if tuned else default.resnet
    assert duration is not None, "a checkpoint is read only if its kind of detector can be fine-tuned"
    _schedule(detection, images, duration.epochs(images), default.drop)
    sections = [detection]
    mask_head = content["train_panoptic"] if masks is not None else None
    content["train_panoptic"] = mask_head
    if mask_head is not None:
        sections.append(mask_head)
        mask_head["targets"] = masks
        mask_head["batch_size"], mask_head["accumulation"] = detection["batch_size"], 1
        _schedule(mask_head, images, max(2, min(25, detection["epochs"] // 4)), drop=0.6)
    if content["detector"].get("positions", {}).get("kind") == "learned":
        content["detector"]["positions"]["cells"] = ceil(longest / SMALL_STRIDE)
    if "instance-count" in studies["evaluating"]:
        count = studies["evaluating"]["instance-count"]
        _fit_grid(count, content["detector"].get("queries"), longest if small else short)
    for section in sections:
        section["augmentation"] = _augmentation(short, longest, small)
    for file in (content, studies):
        _set_resize(file, {"short": [short], "longest": longest})


def _scale_rates(optimizer: Content, factor: float) -> None:
    for name in ("lr", "backbone_lr"):
        if optimizer.get(name) is not None:
            optimizer[name] = float(f"{optimizer[name] * factor:.2g}")


def _schedule(training: Content, images: int, epochs: int, drop: float) -> None:
    steps = max(1, images // training["batch_size"])
    training["epochs"], training["steps"] = epochs, None
    training["validate_every"] = max(1, epochs // 10)
    training["checkpoint_every"] = max(20, steps * epochs // 50)
    schedule = training["schedule"]
    schedule["warmup_steps"] = min(schedule["warmup_steps"], steps * epochs // 20)
    schedule["drop_epochs"] = [max(1, int(drop * epochs))] if schedule["kind"] == "step" else []


def _fit_grid(study: Content, queries: int | None, side: int) -> None:
    """Sets a grid with at most as many cells as the detector has queries, on an image as large as those of the training."""
    grid = study["grid"] if queries is None else isqrt(queries)
    study.update(grid=grid, canvas=side - side % grid, fill=list(GRAY), classes=None, shown=min(study["shown"], grid**2))


def _small_size(train: Statistics) -> tuple[int, int]:
    """Returns (short, longest), at which the median object has SMALL_OBJECT pixels and the image is within SMALL_IMAGE.

    Images are enlarged only if they are smaller than SMALL_IMAGE.
    """
    short, long = _middle_image(train)
    scale = min(1.0, SMALL_OBJECT / max(1, quantile(train.sides, 0.5)))
    scale = min(max(scale, SMALL_IMAGE[0] / long), SMALL_IMAGE[1] / long)
    return max(32, 8 * round(scale * short / 8)), max(32, 8 * ceil(scale * long / 8))


def _resnet_size(train: Statistics, tuned: bool) -> tuple[int, int]:
    """Returns (short, longest): the published 800 and 1333, or less where images would be enlarged more than COCO's are."""
    short = SHORT if tuned else min(SHORT, 32 * ceil(ENLARGED * _middle_image(train)[0] / 32))
    return short, round(short * 1333 / 800)


def _middle_image(train: Statistics) -> tuple[int, int]:
    shorts, longs = Counter[int](), Counter[int]()
    for size, images in train.sizes.items():
        shorts[min(size)] += images
        longs[max(size)] += images
    return quantile(shorts, 0.5), quantile(longs, 0.5)


def _augmentation(short: int, longest: int, small: bool) -> dict[str, Any]:
    if small:  # the images have too few pixels for crops
        shorts = sorted({8 * round(share * short / 8) for share in (0.8, 0.9, 1.0)})
        return {"flip": 0.5, "crop": None, "resize": {"short": shorts, "longest": longest}}
    before, shorts = ([round(side * short / SHORT) for side in sides] for sides in (BEFORE_CROP, RESIZE))
    smallest, largest = (round(side * short / SHORT) for side in CROP)
    crop = {"probability": 0.5, "before": before, "smallest": smallest, "largest": largest}
    return {"flip": 0.5, "crop": crop, "resize": {"short": shorts, "longest": longest}}


def _set_resize(section: Content, resize: dict[str, Any]) -> None:
    """Sets every `resize` of validation and evaluation in the profile; the `resize` in `augmentation` is that of training."""
    for key, value in section.items():
        if key == "resize":
            section[key] = {"short": list(resize["short"]), "longest": resize["longest"]}
        elif isinstance(value, MutableMapping) and key != "augmentation":
            _set_resize(value, resize)
