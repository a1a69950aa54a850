"""Defines the common parts of the published formats, in which the authors' training code writes their detectors.

A file holds {'model': state dict, ...}, or only the state dict. It has no configuration, which is inferred from the names and
shapes of the weights, and from the argument namespace if there is one. A class index is the category id of the data: with 91
classes COCO's things, with 250 classes COCO's things and stuff.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detr_core.coco import coco_categories
from detr_core.config import ConfigError
from detr_core.model.common.files import CheckpointError, PlainArguments
from detr_core.model.common.inferred import stated_values, written_categories
from detr_core.structures import Category

COCO_CLASSES = (91, 250)  # of the published detectors and panoptic models: COCO's highest category id + 1, or more


def state_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the state dict in the content of a file; an empty mapping if there is none."""
    state = content.get("model", content)
    return state if isinstance(state, Mapping) else {}


@dataclass(frozen=True)
class Arguments:
    """The arguments of a training that a detector depends on and that its weights don't show, under their published names.

    The defaults are those of the authors' code; `arguments_of` leaves out what a file does not state.
    """

    dilation: bool | None = field(default=None, metadata={"optional": True})
    nheads: int = field(default=8, metadata={"optional": True})
    dropout: float = field(default=0.1, metadata={"optional": True})
    num_queries: int = field(default=300, metadata={"optional": True})
    with_box_refine: bool = field(default=False, metadata={"optional": True})


def arguments_of(content: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Returns the values of `Arguments` in the content of a file; an empty mapping if there are none.

    Other programs write arguments of another sort, which are ignored. Raises CheckpointError for a value of another type.
    """
    arguments = content.get("args") if "model" in content else None
    values = arguments.values if isinstance(arguments, PlainArguments) else arguments
    stated = stated_values(Arguments, values if isinstance(values, Mapping) else {}, f"{file}: args")
    return {name: value for name, value in stated.items() if value is not None}


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


def categories_of(entries: Any, classes: int, file: str) -> tuple[Category, ...]:
    """Returns the category of each class index.

    entries: the categories in a file that this project has written. With None, as in other files, the classes are COCO's
    categories if there are as many as in a published file, else categories without a name; the id is always the index. Raises
    CheckpointError, which names the file, for entries that `written_categories` refuses.
    """
    if entries is not None:
        try:
            return written_categories(entries, classes)
        except ConfigError as error:
            raise CheckpointError(f"{file}: {error}; export the checkpoint again") from None
    if classes not in COCO_CLASSES:  # trained on other data, whose category names are not in the file
        return tuple(Category(index, "", True) for index in range(classes))
    coco = coco_categories()
    return tuple(coco.get(index, Category(index, f"unused {index}", False, used=False)) for index in range(classes))
