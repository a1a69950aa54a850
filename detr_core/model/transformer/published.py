"""Defines the common parts of the published formats, in which the authors' training code writes their detectors.

A file holds {'model': state dict, ...}, or only the state dict. It has no configuration, which is inferred from the names and
shapes of the weights, and from the argument namespace if there is one. A class index is the category id of the data: with 91
classes COCO's things, with 250 classes COCO's things and stuff.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from detr_core.coco import coco_categories
from detr_core.config import ConfigError
from detr_core.model.common.files import CheckpointError, PlainArguments
from detr_core.structures import Category

COCO_CLASSES = (91, 250)  # of the published detectors and panoptic models: COCO's highest category id + 1, or more

# name -> (number of blocks of each stage, whether they are bottlenecks of three convolutions)
_RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}

Shapes = Mapping[str, tuple[int, ...]]


def state_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the state dict in the content of a file; an empty mapping if there is none."""
    state = content.get("model", content)
    return state if isinstance(state, Mapping) else {}


def require_numbers(state: Mapping[str, Any], file: str) -> None:
    """Raises CheckpointError, which names the file and the weight, unless all values are tensors of floating point numbers."""
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor) or not value.is_floating_point():
            actual = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(f"{file}: {key}: expected a tensor of floating point numbers, found {actual}")


def arguments_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the arguments of the training in the content of a file; an empty mapping if there are none."""
    arguments = content.get("args") if "model" in content else None
    if isinstance(arguments, PlainArguments):
        return arguments.values
    return arguments if isinstance(arguments, Mapping) else {}


def dilation_of(arguments: Mapping[str, Any], file: str, request: bool | None) -> bool:
    """Returns whether a file has a DC5 model, which its weights can't show.

    request: what the caller asks for; None takes it from the arguments, or False without arguments. Raises CheckpointError if the
    request contradicts the arguments, or if only the file's name says that it is a DC5 model.
    """
    file_value = arguments.get("dilation")
    if request is not None:
        if isinstance(file_value, bool) and file_value != request:
            raise CheckpointError(f"{file}: args.dilation: expected {request}, as requested, found {file_value}")
        return request
    if file_value is None and "dc5" in Path(file).name.lower():
        raise CheckpointError(
            f"{file}: its name contains DC5, but its weights don't show dilation and the file has no args.dilation; "
            "say whether it is one (`--dilation` or `--no-dilation`)"
        )
    return bool(file_value)


def resnet_of(shapes: Shapes) -> str:
    """Returns the name of the ResNet that is most similar to the backbone's weights."""
    blocks = [count(shapes, rf"backbone\.0\.body\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
    bottlenecks = any(re.match(r"backbone\.0\.body\.layer\d\.\d+\.conv3\.", key) for key in shapes)

    def distance(name: str) -> tuple[bool, int]:
        expected, with_bottlenecks = _RESNETS[name]
        return bottlenecks != with_bottlenecks, sum(abs(a - b) for a, b in zip(blocks, expected, strict=True))

    return min(_RESNETS, key=distance)


def count(shapes: Shapes, pattern: str) -> int:
    """Returns the number of different texts that the first group of the pattern has in the names of the weights."""
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def agreed(shapes: Shapes, axes: Sequence[tuple[str, int]], *published: int) -> int:
    """Returns a length that the shapes of several weights give, by majority, so that one wrong shape does not decide.

    axes: a name and an axis of each of these weights. Without a majority the result is one of the published lengths, by default
    the first.
    """
    lengths = Counter(shapes[key][axis] for key, axis in axes if len(shapes.get(key, ())) > axis)
    likely = [length for length, votes in lengths.items() if votes == max(lengths.values())]
    if len(likely) == 1:
        return likely[0]
    return next((length for length in published if length in likely), published[0])


def require_same(file: str, expected: Shapes, state: Mapping[str, Tensor], detector: str) -> None:
    """Raises CheckpointError, which names every weight that is missing, unknown or has another shape than expected.

    detector: what the weights should belong to, such as 'DETR'.
    """
    problems = []
    if missing := [key for key in expected if key not in state]:
        problems.append(f"missing {', '.join(missing)}")
    if unknown := [key for key in state if key not in expected]:
        problems.append(f"unknown {', '.join(unknown)}")
    for key, shape in expected.items():
        if key in state and tuple(state[key].shape) != shape:
            problems.append(f"{key}: expected shape {list(shape)}, found {list(state[key].shape)}")
    if problems:
        raise CheckpointError(f"{file}: the weights are not those of a published {detector}: {'; '.join(problems)}")


def categories_of(content: Mapping[str, Any], classes: int) -> tuple[Category, ...]:
    """Returns the category of each class index. Only files that this project has written name them; others have ids of COCO.

    Raises ConfigError, KeyError or TypeError for categories that do not fit.
    """
    entries = content.get("categories")
    if entries is not None:
        categories = tuple(_category(entry) for entry in entries)
        if len(categories) != classes:
            raise ConfigError(f"categories: expected {classes}, the number of classes of the class head, found {len(categories)}")
        return categories
    if classes not in COCO_CLASSES:  # trained on other data, whose category names are not in the file
        return tuple(Category(index, "", True) for index in range(classes))
    coco = coco_categories()
    return tuple(coco.get(index, Category(index, f"unused {index}", False, used=False)) for index in range(classes))


def _category(entry: Any) -> Category:
    return Category(int(entry["id"]), str(entry["name"]), bool(entry["isthing"]), bool(entry.get("used", True)))
