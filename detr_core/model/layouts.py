"""The layouts of checkpoints from elsewhere. A row of `LAYOUTS` holds how one is recognised, read and written for one kind.

The functions of a row import the code of their kind when they are called, as those of `spec.py` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detr_core.config import ConfigError
from detr_core.model.faster_rcnn.config import FasterRcnnConfig
from detr_core.model.mask_rcnn.config import MaskRcnnConfig
from detr_core.structures import Category

if TYPE_CHECKING:
    from detr_core.model.common.detector import Detector

Read = tuple["Detector", tuple[Category, ...], dict[str, Any]]
"""The result of `read`: the detector on the CPU, its categories, and details needed to write the file again."""

FileDetails = Mapping[str, Any]
"""The details of a file that `read` returned; empty for a detector that was not read from such a file."""


@dataclass(frozen=True)
class Layout:
    """A layout of the checkpoints of one kind of detector.

    name: the name of the layout in commands. kind: the kind of detector. title: what its checkpoints are called in messages.
    recognised: returns whether the names of a file's weights are those of the layout. read: called with the content of the file,
    the path of the file, and whether the detector is a DC5 model (None takes this from the file). write: called with the
    detector, its categories, the details of the file that it was read from, and the path for errors; returns the
    content of a file. Both raise CheckpointError. safetensors: whether it is written as a safetensors file; every layout can be
    read from one.
    """

    name: str
    kind: str
    title: str
    recognised: Callable[[Sequence[str]], bool]
    read: Callable[[Mapping[str, Any], str, bool | None], Read]
    write: Callable[[Any, Sequence[Category], FileDetails, str], dict[str, Any]]
    safetensors: bool = False


def _is_published(names: Iterable[str]) -> bool:
    return any(name.removeprefix("detr.").startswith("transformer.") for name in names)


def _read_published(content: Mapping[str, Any], file: str, dilation: bool | None) -> Read:
    from detr_core.model.detr.published import from_published

    return *from_published(content, file, dilation), {}


def _write_published(model: Any, categories: Sequence[Category], file_details: FileDetails, file: str) -> dict[str, Any]:
    from detr_core.model.detr.published import to_published

    return to_published(model, categories, file)


def _is_published_deformable(names: Iterable[str]) -> bool:
    return any(name.startswith("transformer.") and name.endswith(("level_embed", "sampling_offsets.weight")) for name in names)


def _read_published_deformable(content: Mapping[str, Any], file: str, dilation: bool | None) -> Read:
    from detr_core.model.deformable.published import from_published

    return *from_published(content, file, dilation), {}


def _write_published_deformable(
    model: Any, categories: Sequence[Category], file_details: FileDetails, file: str
) -> dict[str, Any]:
    from detr_core.model.deformable.published import to_published

    return to_published(model, categories, file)


def _is_hugging_face_deformable(names: Iterable[str]) -> bool:
    return any(name.startswith("model.") and name.endswith(("level_embed", "sampling_offsets.weight")) for name in names)


def _read_hugging_face_deformable(content: Mapping[str, Any], file: str, dilation: bool | None) -> Read:
    from detr_core.model.deformable.hugging_face import from_hugging_face

    return from_hugging_face(content, file, dilation)


def _write_hugging_face_deformable(
    model: Any, categories: Sequence[Category], file_details: FileDetails, file: str
) -> dict[str, Any]:
    from detr_core.model.deformable.hugging_face import to_hugging_face

    return to_hugging_face(model, categories, file_details, file)


def _is_hugging_face_detr(names: Iterable[str]) -> bool:
    return any(name.removeprefix("detr.").startswith("class_labels_classifier.") for name in names)


def _read_hugging_face_detr(content: Mapping[str, Any], file: str, dilation: bool | None) -> Read:
    from detr_core.model.detr.hugging_face import from_hugging_face

    return from_hugging_face(content, file, dilation)


def _write_hugging_face_detr(model: Any, categories: Sequence[Category], file_details: FileDetails, file: str) -> dict[str, Any]:
    from detr_core.model.detr.hugging_face import to_hugging_face

    return to_hugging_face(model, categories, file_details, file)


def _is_torchvision_masks(names: Iterable[str]) -> bool:
    return any(name.startswith("roi_heads.mask_predictor.") for name in names)


def _read_torchvision_masks(content: Mapping[str, Any], file: str, dilation: bool | None) -> Read:
    from detr_core.model.regions.torchvision_layout import from_torchvision

    return from_torchvision(content, file, MaskRcnnConfig)


def _is_torchvision(names: Iterable[str]) -> bool:
    return any(name.startswith("roi_heads.box_predictor.") for name in names)


def _read_torchvision(content: Mapping[str, Any], file: str, dilation: bool | None) -> Read:
    from detr_core.model.regions.torchvision_layout import from_torchvision

    return from_torchvision(content, file, FasterRcnnConfig)


def _write_torchvision(model: Any, categories: Sequence[Category], file_details: FileDetails, file: str) -> dict[str, Any]:
    from detr_core.model.regions.torchvision_layout import to_torchvision

    return to_torchvision(model, categories, file_details, file)


# The first row that fits a file is used, because the published names of DETR are some of those of Deformable DETR, and those of
# Faster R-CNN some of Mask R-CNN's. The first row of a kind is the layout that an export has by default.
LAYOUTS = (
    Layout(
        name="published",
        kind="deformable",
        title="a published Deformable DETR",
        recognised=_is_published_deformable,
        read=_read_published_deformable,
        write=_write_published_deformable,
    ),
    Layout(
        name="published",
        kind="detr",
        title="a published DETR",
        recognised=_is_published,
        read=_read_published,
        write=_write_published,
    ),
    Layout(
        name="hugging-face",
        kind="detr",
        title="a DETR of Hugging Face's transformers",
        recognised=_is_hugging_face_detr,
        read=_read_hugging_face_detr,
        write=_write_hugging_face_detr,
        safetensors=True,
    ),
    Layout(
        name="hugging-face",
        kind="deformable",
        title="a Deformable DETR of Hugging Face's transformers",
        recognised=_is_hugging_face_deformable,
        read=_read_hugging_face_deformable,
        write=_write_hugging_face_deformable,
        safetensors=True,
    ),
    Layout(
        name="torchvision",
        kind="mask_rcnn",
        title="torchvision's Mask R-CNN",
        recognised=_is_torchvision_masks,
        read=_read_torchvision_masks,
        write=_write_torchvision,
    ),
    Layout(
        name="torchvision",
        kind="faster_rcnn",
        title="torchvision's Faster R-CNN",
        recognised=_is_torchvision,
        read=_read_torchvision,
        write=_write_torchvision,
    ),
)


def layout_of(names: Sequence[str]) -> Layout | None:
    """Returns the layout that has weights of these names; None if no layout has."""
    return next((layout for layout in LAYOUTS if layout.recognised(names)), None)


def layout_for(kind: str, name: str | None) -> Layout:
    """Returns the layout in which a detector of this kind is exported. name: None takes the kind's first layout.

    Raises ConfigError, which lists the layouts of the kind, if there is none of this name.
    """
    of_kind = [layout for layout in LAYOUTS if layout.kind == kind]
    if not of_kind:
        kinds = " or ".join(dict.fromkeys(repr(layout.kind) for layout in LAYOUTS))
        raise ConfigError(
            f"--checkpoint: expected a detector of kind {kinds}, found {kind!r}, which has no layout from elsewhere"
        )
    fitting = [layout for layout in of_kind if name in (None, layout.name)]
    if not fitting:
        known = " or ".join(repr(layout.name) for layout in of_kind)
        raise ConfigError(f"--layout: expected {known} for a detector of kind {kind!r}, found {name!r}")
    return fitting[0]
