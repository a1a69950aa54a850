"""Accounts for a checked dataset: every supplied image and object is either used, or left out because of a finding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from detr_core.check.findings import Finding
from detr_core.data.annotation_reader import read_annotations
from detr_core.data.fields import read_content
from detr_core.data.splits import Split
from detr_core.sources.account import Account
from detr_core.sources.split import id_in

Source = Literal["instances", "panoptic"]


@dataclass(frozen=True)
class EntryCounts:
    """How many images and objects an annotation file lists; the objects of a panoptic file are its segments."""

    images: int
    objects: int


def count_entries(content: Mapping[str, Any], source: str) -> EntryCounts:
    """Returns how many images and objects an annotation file lists, including broken ones."""
    return EntryCounts(len(content["images"]), sum(_objects(entry, source) for entry in content["annotations"]))


def source_counted(split: Split) -> Source:
    """Returns the annotation file whose images and objects the numbers of a split count: the panoptic one, if there is one."""
    return "instances" if split.panoptic is None else "panoptic"


def accounts(
    supplied: Mapping[str, Split],
    sizes: Mapping[tuple[str, str], EntryCounts],
    checked: Mapping[str, Split],
    findings: Sequence[Finding],
) -> dict[str, float]:
    """Returns each annotation file's account as metrics: 'account/train/instances/images/supplied', '.../used', '.../left_out'.

    'left_out/train/images' and so on repeat the numbers left out of the file that `source_counted` names.

    supplied: the splits that the check read. sizes: (split, source) -> the numbers of images and objects that this annotation
    file lists. checked: the splits that later stages read; their objects are counted as these stages read them, including crowds.
    findings: the findings of the check. Raises UnaccountedError if the number of supplied entries is not the number of used ones
    plus the number that the findings leave out.
    """
    metrics: dict[str, float] = {}
    for (name, source), supplied_counts in sizes.items():
        broken = [finding for finding in findings if finding.split == name and finding.leaves is not None]
        file: Path = getattr(supplied[name], source)
        left_out_counts = left_out(read_content(file), source, broken) if broken else EntryCounts(0, 0)
        annotations = read_annotations(checked[name], "panoptic" if source == "panoptic" else "instances", masks=False)
        used_counts = EntryCounts(len(annotations.image_ids), len(annotations.labels) + sum(annotations.not_trained_on.values()))
        for entries in ("images", "objects"):
            account = Account(
                f"{file}: {entries}",
                getattr(supplied_counts, entries),
                getattr(used_counts, entries),
                getattr(left_out_counts, entries),
            )
            prefix = f"account/{name}/{source}/{entries}"
            metrics |= {f"{prefix}/{part}": float(getattr(account, part)) for part in ("supplied", "used", "left_out")}
            if source == source_counted(supplied[name]):
                metrics[f"left_out/{name}/{entries}"] = float(account.left_out)
    return metrics


def left_out(content: Mapping[str, Any], source: str, findings: Sequence[Finding]) -> EntryCounts:
    """Returns how many images and objects of an annotation file the findings of its split leave out.

    An image is left out together with its objects.
    """
    entries = {finding.entry_index for finding in findings if finding.kind == "image_entry" and finding.source == source}
    ids = images_left_out(findings)
    objects_left_out = {finding.entry_index for finding in findings if finding.source == source and finding.leaves == "object"}
    segments: dict[int | None, set[int | None]] = defaultdict(set)
    if source == "panoptic":
        for finding in findings:
            if finding.kind == "panoptic_missing_segment":
                segments[finding.entry_index].add(finding.segment)
        objects_left_out -= set(segments)
    objects = 0
    for index, entry in enumerate(content["annotations"]):
        if index in objects_left_out or id_in(entry, "image_id") in ids:
            objects += _objects(entry, source)
        elif index in segments:
            objects += len(segments[index])
    images = sum(index in entries or id_in(entry, "id") in ids for index, entry in enumerate(content["images"]))
    return EntryCounts(images, objects)


def images_left_out(findings: Iterable[Finding]) -> set[int]:
    """Returns the ids of the images that the findings of a split leave out, with their objects, from both annotation files.

    Broken image entries are not included, because they need not have an id: the `entry_index` of such a finding names it.
    """
    numbers = (finding.image_id for finding in findings if _leaves_image(finding) and finding.kind != "image_entry")
    return {number for number in numbers if number is not None}


def _leaves_image(finding: Finding) -> bool:
    # A broken segment leaves out its image, because its pixels would stay in the PNG without an entry that describes them.
    in_png = finding.source == "panoptic" and finding.kind != "panoptic_missing_segment"
    return finding.leaves == "image" or (finding.leaves == "object" and in_png)


def _objects(annotation: Any, source: str) -> int:
    segments = annotation.get("segments_info") if source == "panoptic" and isinstance(annotation, dict) else None
    return len(segments) if isinstance(segments, list) else 1
