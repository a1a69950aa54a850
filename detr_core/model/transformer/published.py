"""Defines the common parts of the published formats, in which the authors' training code writes their detectors.

A file holds {'model': state dict, ...}, or only the state dict. It has no configuration, which is inferred from the names and
shapes of the weights, and from the argument namespace if there is one. A class index is the category id of the data: with 91
classes COCO's things, with 250 classes COCO's things and stuff.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detr_core.coco import coco_categories
from detr_core.model.common.files import CheckpointError, PlainArguments
from detr_core.model.common.inferred import written_categories
from detr_core.structures import Category

COCO_CLASSES = (91, 250)  # of the published detectors and panoptic models: COCO's highest category id + 1, or more


def state_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the state dict in the content of a file; an empty mapping if there is none."""
    state = content.get("model", content)
    return state if isinstance(state, Mapping) else {}


def arguments_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the arguments of the training in the content of a file; an empty mapping if there are none."""
    arguments = content.get("args") if "model" in content else None
    if isinstance(arguments, PlainArguments):
        return arguments.values
    return arguments if isinstance(arguments, Mapping) else {}


def dilation_of(arguments: Mapping[str, Any], file: str, request: bool | None, name: str | None = None) -> bool:
    """Returns whether a file has a DC5 model, which its weights can't show.

    request: what the caller asks for; None takes it from the arguments, or False without arguments. name: the name under which
    the model is known; None takes the file's. Raises CheckpointError if the request contradicts the arguments, or if only the
    name says that it is a DC5 model.
    """
    file_value = arguments.get("dilation")
    if request is not None:
        if isinstance(file_value, bool) and file_value != request:
            raise CheckpointError(f"{file}: args.dilation: expected {request}, as requested, found {file_value}")
        return request
    if file_value is None and "dc5" in (name or Path(file).name).lower():
        raise CheckpointError(
            f"{file}: its name contains DC5, but its weights don't show dilation and the file has no args.dilation; "
            "say whether it is one (`--dilation` or `--no-dilation`)"
        )
    return bool(file_value)


def categories_of(entries: Any, classes: int) -> tuple[Category, ...]:
    """Returns the category of each class index.

    entries: the categories in a file that this project has written. With None, as in other files, the classes are COCO's
    categories if there are as many as in a published file, else categories without a name; the id is always the index. Raises
    the errors of `written_categories`.
    """
    if entries is not None:
        return written_categories(entries, classes)
    if classes not in COCO_CLASSES:  # trained on other data, whose category names are not in the file
        return tuple(Category(index, "", True) for index in range(classes))
    coco = coco_categories()
    return tuple(coco.get(index, Category(index, f"unused {index}", False, used=False)) for index in range(classes))
