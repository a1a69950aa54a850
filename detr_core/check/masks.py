"""Checks whether an annotation file of instances has a mask for every object or for none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from detr_core.check.findings import Finding
from detr_core.sources.split import id_in


def objects_without_mask(
    annotations: Sequence[Any], names: Mapping[int, str], findings: Sequence[Finding], split: str
) -> Iterator[Finding]:
    """Yields a finding for each object without a mask in a file where other objects have one. Crowds are ignored.

    findings: the findings of this file so far; objects that they leave out are ignored. names: image id -> file name of the
    images that are not left out.
    """
    indices_to_ignore = {finding.entry_index for finding in findings if finding.leaves == "object"}
    objects = [
        (index, entry)
        for index, entry in enumerate(annotations)
        if index not in indices_to_ignore
        and isinstance(entry, dict)
        and id_in(entry, "image_id") in names
        and not entry.get("iscrowd")
    ]
    without_mask = [(index, int(entry["image_id"])) for index, entry in objects if not entry.get("segmentation")]
    if len(without_mask) == len(objects):
        return
    for index, image_id in without_mask:
        detail = f"{len(without_mask)} of {len(objects)} objects have no mask"
        yield Finding("object_without_mask", split, "instances", image_id, names[image_id], index, detail=detail)
