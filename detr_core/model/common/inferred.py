"""Infers a detector from the names and shapes of its weights, for the files of other programs, which have no configuration.

The functions are common to the layouts of all kinds. Names are those of this project's detectors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from detr_core.config import ConfigError, build, require
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


def require_numbers(state: Any, file: str) -> None:
    """Raises CheckpointError, which names the file and the weight, unless all values are tensors of floating point numbers.

    A tensor without values, on the meta device, or of another layout than the dense one is refused, too, and a name that is no
    text.
    """
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{file}: model: expected a mapping of names to weights, found a value of type {type(state).__name__}"
        )
    for key, value in state.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"{file}: {key!r}: expected the name of a weight as text, found a value of type {type(key).__name__}"
            )
        if (actual := _instead_of_numbers(value)) is not None:
            raise CheckpointError(f"{file}: {key}: expected a dense tensor of floating point numbers, found {actual}")


def _instead_of_numbers(value: Any) -> str | None:
    if not isinstance(value, Tensor):
        return type(value).__name__
    if not value.is_floating_point():
        return str(value.dtype)
    if value.is_meta:
        return "one on the meta device, which holds no values"
    return f"one of another layout ({value.layout})" if value.layout != torch.strided or value.is_nested else None


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


def written_categories(entries: Any, classes: int | None = None) -> tuple[Category, ...]:
    """Returns the category of each class index from the entries in a file that this project has written.

    classes: the number of classes of the class head; None if the categories give it. Raises ConfigError for categories that do
    not fit it, for an id that is not a whole number from 0 or that two of them have, and for a name that is no text.
    """
    require(isinstance(entries, list | tuple), "categories", "a list", entries)
    categories = tuple(_category(entry, f"categories[{index}]") for index, entry in enumerate(entries))
    twice = [number for number, times in Counter(category.id for category in categories).items() if times > 1]
    require(not twice, "categories", "every id once", twice)
    if len(categories) != (classes or len(categories)):
        raise ConfigError(f"categories: expected {classes}, the number of classes of the class head, found {len(categories)}")
    return categories


def stated_values(kind: type, values: Any, where: str) -> dict[str, Any]:
    """Returns the values in a file that are fields of the dataclass `kind`, and no others.

    where: the file, and the place in it, for errors. Raises CheckpointError for a value of another type than that of its field,
    and for values that are no mapping.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{where}: expected a mapping, found a value of type {type(values).__name__}; correct or remove it")
    names = [field.name for field in fields(kind) if field.name in values]
    try:
        built: Any = build(kind, {name: values[name] for name in names}, where)
    except ConfigError as error:
        raise CheckpointError(f"{error}; correct or remove this value") from None
    return {name: getattr(built, name) for name in names}


def require_classes(classes: int) -> None:
    """Raises ConfigError for a class head without classes."""
    require(classes >= 1, "the class head", "1 class or more", max(0, classes))


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


def _category(entry: Any, where: str) -> Category:
    category = build(Category, {"used": True, **entry} if isinstance(entry, Mapping) else entry, where)
    require(category.id >= 0, f"{where}: id", "a whole number from 0", category.id)
    return category
