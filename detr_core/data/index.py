"""The index of a dataset: its annotation files as arrays on disk, which start-up maps into memory instead of parsing JSON.

A folder of `.npy` files for each annotation file, below the index of its split, and `index.json`, which has the checksums of the
annotation file that they were made from and of themselves. All are verified before anything is read from them; where one doesn't
fit, the annotation file itself is read. Loader processes share the mapped pages, however they are started.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from detr_core.data.annotations import Annotations, Targets, annotation_file, annotations_of, parsed
from detr_core.data.dataset import Split
from detr_core.download import digest

VERSION = 1  # of what `parsed` makes of a file; another one is not believed
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
    """Writes the index of the splits of `read_dataset`; yields split, annotations and how many objects train nothing, by reason.

    Masks of instances are left out: they are large, and no training reads them. Raises DatasetError for a malformed file.
    """
    for name, split in splits.items():
        for targets in ("instances", "panoptic"):
            if getattr(split, targets) is None:
                continue
            assert split.index is not None, "a split of read_dataset"
            file = annotation_file(split, targets)
            arrays = parsed(file, targets, masks=targets == "panoptic")
            place = split.index / targets
            place.mkdir(parents=True)
            for array, content in arrays.items():
                np.save(place / f"{array}.npy", content)
            sums = {array: digest(place / f"{array}.npy") for array in arrays}
            about = {"version": VERSION, "annotations": digest(file), "arrays": sums}
            (place / "index.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            yield name, targets, annotations_of(arrays, split, targets).left_out


def indexed(split: Split, targets: Targets, masks: bool) -> Annotations | None:
    """The annotations from the split's index; None where it has none that fits the annotation file as it is now."""
    if split.index is None:
        return None
    place = split.index / targets
    try:
        about = json.loads((place / "index.json").read_bytes())
        sums = about["arrays"]
        wanted = set(_DTYPES) - (set() if masks else _OF_MASKS) - ({"segments"} if targets == "instances" else set())
        if about["version"] != VERSION or not wanted <= set(sums):
            return None
        if about["annotations"] != digest(annotation_file(split, targets)):
            return None
        if any(digest(place / f"{name}.npy") != sums[name] for name in wanted):
            return None
        return Mapped.of(place, wanted, split, targets)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Mapped(Annotations):
    """Annotations whose arrays are mapped from an index. Another process gets the address of the index, not a copy of them."""

    @classmethod
    def of(cls, place: Path, names: set[str], split: Split, targets: Targets) -> Mapped:
        """From the verified index in `place`. Raises ValueError for arrays of another kind than an index has."""
        arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
        if any(array.dtype != _DTYPES[name] for name, array in arrays.items()):
            raise ValueError(f"{place}: arrays of another kind")
        found = annotations_of(arrays, split, targets)
        mapped = cls(**{field: getattr(found, field) for field in found.__dataclass_fields__})
        object.__setattr__(mapped, "_made_by", (place, names, split, targets))
        return mapped

    def __reduce__(self) -> tuple[Any, ...]:
        made_by: tuple[Any, ...] = self._made_by  # type: ignore[attr-defined]
        return Mapped.of, made_by
