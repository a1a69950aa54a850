"""Writes and reads the index: the content of annotation files as arrays on disk, which later stages map into memory.

Mapping the arrays takes less time and memory than parsing JSON. The index of an annotation file is a folder of `.npy` files with
an `index.json`, which holds the checksums of these files and of the annotation file. All checksums are verified before the arrays
are used; if one differs, the annotation file is parsed instead. Dataloader workers share the mapped memory pages, whether they
are forked or spawned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from detr_core.checksums import digest
from detr_core.data.annotations import Annotations, Targets, annotation_file, annotations_of, parsed
from detr_core.data.splits import Split

VERSION = 1  # version of the arrays that `parsed` returns; an index of another version is ignored
_DTYPES = {
    "categories": "uint8",
    "image_ids": "int64",
    "names": "uint8",
    "name_starts": "int64",
    "sizes": "int32",
    "first": "int64",
    "labels": "int64",
    "boxes": "float32",
    "left_out": "int64",
    "masks": "uint8",
    "mask_starts": "int64",
    "segments": "int32",
}
_OF_MASKS = {"masks", "mask_starts", "segments"}


def write_index(splits: Mapping[str, Split]) -> Iterator[tuple[str, Targets, dict[str, int]]]:
    """Writes the index of the splits of `read_dataset`. Yields (split, kind of annotations, {reason: objects not trained on}).

    Raises DatasetError for a malformed annotation file.
    """
    for name, split in splits.items():
        for targets in ("instances", "panoptic"):
            if getattr(split, targets) is None:
                continue
            assert split.index is not None, "expected a split that read_dataset returned"
            file = annotation_file(split, targets)
            arrays = parsed(file, targets, masks=True)
            folder = split.index / targets
            folder.mkdir(parents=True)
            for array, content in arrays.items():
                np.save(folder / f"{array}.npy", content)
            sums = {array: digest(folder / f"{array}.npy") for array in arrays}
            description = {"version": VERSION, "annotations": digest(file), "arrays": sums}
            (folder / "index.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
            yield name, targets, annotations_of(arrays, split, targets).not_trained_on


def indexed(split: Split, targets: Targets, masks: bool) -> Annotations | None:
    """Returns the annotations from the split's index; None if it has no index, or one that does not fit the annotation file."""
    if split.index is None:
        return None
    folder = split.index / targets
    try:
        description = json.loads((folder / "index.json").read_bytes())
        sums = description["arrays"]
        names = set(_DTYPES) - (set() if masks else _OF_MASKS) - ({"segments"} if targets == "instances" else set())
        if description["version"] != VERSION or not names <= set(sums):
            return None
        if description["annotations"] != digest(annotation_file(split, targets)):
            return None
        if any(digest(folder / f"{name}.npy") != sums[name] for name in names):
            return None
        return Mapped.of(folder, names, split, targets)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Mapped(Annotations):
    """Annotations whose arrays are mapped from an index. Pickling stores the path of the index instead of the arrays."""

    @classmethod
    def of(cls, folder: Path, names: set[str], split: Split, targets: Targets) -> Mapped:
        """Returns the annotations of the verified index in `folder`. Raises ValueError if an array has the wrong dtype."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
        if any(array.dtype != _DTYPES[name] for name, array in arrays.items()):
            raise ValueError(f"{folder}: expected the arrays of an index, found an array of another dtype")
        annotations = annotations_of(arrays, split, targets)
        mapped = cls(**{field: getattr(annotations, field) for field in annotations.__dataclass_fields__})
        object.__setattr__(mapped, "_made_by", (folder, names, split, targets))
        return mapped

    def __reduce__(self) -> tuple[Any, ...]:
        made_by: tuple[Any, ...] = self._made_by  # type: ignore[attr-defined]
        return Mapped.of, made_by
