"""Infers a detector from the names and shapes of its weights, for the files of other programs, which have no configuration.

The functions are common to the layouts of all kinds. Names are those of this project's detectors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from detr_core.config import ConfigError, require
from detr_core.model.common.detector import Detector
from detr_core.model.common.files import CheckpointError
from detr_core.structures import Category

_LISTED = 20  # this number of wrong weights is listed in an error

# name -> (number of blocks of each stage, whether they are bottlenecks of three convolutions)
_RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
}

Shapes = Mapping[str, tuple[int, ...]]


def is_dense(weight: Tensor) -> bool:
    """Returns whether a tensor has all its values in the memory of the CPU."""
    return weight.layout == torch.strided and weight.device.type == "cpu"


def require_numbers(state: Mapping[str, Any], file: str) -> None:
    """Raises CheckpointError, which names the file and the weight, unless all values are tensors of floating point numbers."""
    for key, value in state.items():
        dense = isinstance(value, Tensor) and is_dense(value)
        if not isinstance(key, str) or not dense or not value.is_floating_point():
            actual = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise CheckpointError(f"{file}: {key}: expected a dense tensor of floating point numbers, found {actual}")


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


def agreed(shapes: Shapes, places: Sequence[tuple[str, int]], *published: int) -> int:
    """Returns a length that the shapes of several weights give, by majority, so that one wrong shape does not decide.

    places: a name and an axis of each of these weights. Without a majority the result is one of the published lengths, by default
    the first.
    """
    lengths = Counter(shapes[key][axis] for key, axis in places if len(shapes.get(key, ())) > axis)
    likely = [length for length, votes in lengths.items() if votes == max(lengths.values())]
    if len(likely) == 1:
        return likely[0]
    return next((length for length in published if length in likely), published[0])


def require_same(file: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], detector: str) -> None:
    """Raises CheckpointError, which names the weights that are missing, unknown or have another shape than expected.

    If there are more than 20 of a sort, as with another backbone, the error names the first ones and counts the others. expected:
    weights with the expected names and shapes, which can be on the meta device. detector: what the weights should belong to, such
    as 'a published DETR'.
    """
    problems = []
    if missing := [key for key in expected if key not in state]:
        problems.append(f"missing {_listed(missing, ', ')}")
    if unknown := [key for key in state if key not in expected]:
        problems.append(f"unknown {_listed(unknown, ', ')}")
    shapes = [
        f"{key}: expected shape {list(value.shape)}, found {list(state[key].shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if shapes:
        problems.append(_listed(shapes, "; "))
    if problems:
        raise CheckpointError(f"{file}: the weights are not those of {detector}: {'; '.join(problems)}")


def _listed(names: Sequence[str], separator: str) -> str:
    others = f"{separator}and {len(names) - _LISTED} others" if len(names) > _LISTED else ""
    return separator.join(names[:_LISTED]) + others


def written_categories(entries: Iterable[Mapping[str, Any]], classes: int) -> tuple[Category, ...]:
    """Returns the category of each class index from the entries in a file that this project has written.

    Raises ConfigError, KeyError or TypeError for categories that do not fit.
    """
    categories = tuple(_category(entry) for entry in entries)
    require_different_ids(categories)
    if len(categories) != classes:
        raise ConfigError(f"categories: expected {classes}, the number of classes of the class head, found {len(categories)}")
    return categories


def require_kept(
    model: Detector,
    content: Mapping[str, Any],
    file: str,
    read: Callable[[Mapping[str, Any], str, bool | None], tuple[Any, ...]],
    hint: str,
) -> None:
    """Raises CheckpointError, with the hint, if a value of the detector would be lost in a file with this content.

    read: reads the content again. hint: which detectors the layout of the file supports.
    """
    try:
        restored: Detector = read(content, file, None)[0]
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {hint}") from None
    ours, theirs = model.architecture(), restored.architecture()
    if lost := [field for field in ours if ours[field] != theirs.get(field)]:
        raise CheckpointError(f"{file}: {', '.join(f'{field} {ours[field]!r}' for field in lost)} would be lost; {hint}")


def require_different_ids(categories: Sequence[Category]) -> None:
    """Raises ConfigError unless the categories have different ids, which are whole numbers from 0, and texts as names."""
    for category in categories:
        require(type(category.id) is int and category.id >= 0, "categories", "ids that are whole numbers from 0", category.id)
        require(isinstance(category.name, str), "categories", "names that are texts", category.name)
    repeated = next((number for number, times in Counter(category.id for category in categories).items() if times > 1), None)
    require(repeated is None, "categories", "different ids", f"{repeated} twice")
    require(len(categories) > 0, "categories", "one or more", 0)


def _category(entry: Any) -> Category:
    return Category(entry["id"], entry["name"], bool(entry["isthing"]), bool(entry.get("used", True)))
