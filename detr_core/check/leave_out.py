"""Writes a checked dataset: new annotation files without the broken entries; the images stay where they are."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detr_core.check.accounting import images_left_out
from detr_core.check.findings import Finding
from detr_core.data.fields import read_content
from detr_core.data.splits import DatasetError, Split, read_dataset, read_dataset_file, write_dataset_file
from detr_core.data.values import Range


def write_checked(dataset: Path, findings: Sequence[Finding], folder: Path, value_ranges: dict[str, Range] | None = None) -> None:
    """Writes `folder`/dataset.json: the dataset of the folder `dataset`, without the images and objects that findings leave out.

    If the findings leave nothing out, dataset.json points to the original annotation files. Otherwise new files are written to
    `folder`/annotations/: an image is removed from both annotation files of its split, with its annotations. Later stages read
    the new files only. Paths inside of the dataset stay relative, so that both folders can be moved together.
    value_ranges: sample type -> the values by which readers scale images of more than 8 bits per value.
    Raises DatasetError if no image of a split is left.
    """
    source, splits = read_dataset_file(dataset), read_dataset(dataset)
    broken = [finding for finding in findings if finding.leaves is not None]
    root, annotations = (_moved(path, dataset, folder) for path in (source.root, source.annotations))
    file = replace(source, root=root, annotations=annotations, value_ranges=value_ranges)
    if broken:
        (folder / "annotations").mkdir()
        file = replace(file, annotations=".")
        for name, split in splits.items():
            split_findings = [finding for finding in broken if finding.split == name]
            file = replace(file, **{name: replace(getattr(file, name), **_write_files(split, split_findings, folder))})
    write_dataset_file(folder, file)


def _moved(path: str, dataset: Path, folder: Path) -> str:
    return path if Path(path).is_absolute() else os.path.relpath((dataset / path).resolve(), folder.resolve())


def _write_files(split: Split, broken: Sequence[Finding], folder: Path) -> dict[str, str]:
    """Writes the split's annotation files without broken entries. Returns source -> file name below `folder`."""
    entries = {
        source: {finding.entry_index for finding in broken if finding.kind == "image_entry" and finding.source == source}
        for source in ("instances", "panoptic")
    }
    images = images_left_out(broken)
    files = {}
    for source, bad_entries in entries.items():
        original: Path | None = getattr(split, source)
        if original is None:
            continue
        files[source] = f"annotations/{source}_{split.name}.json"
        if not broken:
            shutil.copyfile(original, folder / files[source])
            continue
        content = read_content(original)
        objects = {finding.entry_index for finding in broken if finding.source == source and finding.leaves == "object"}
        empty: dict[int | None, set[int | None]] = defaultdict(set)
        for finding in broken:
            if finding.kind == "panoptic_missing_segment":
                empty[finding.entry_index].add(finding.segment)
        if source == "panoptic":
            objects -= set(empty)
        images_to_keep = [
            image for index, image in enumerate(content["images"]) if index not in bad_entries and int(image["id"]) not in images
        ]
        if not images_to_keep:
            raise DatasetError(f"{original}: expected at least one valid image, found none")
        ids = {int(image["id"]) for image in images_to_keep}
        annotations = [
            _without(annotation, empty[index]) if source == "panoptic" and index in empty else annotation
            for index, annotation in enumerate(content["annotations"])
            if index not in objects and int(annotation["image_id"]) in ids
        ]
        text = json.dumps(content | {"images": images_to_keep, "annotations": annotations})
        (folder / files[source]).write_text(text, encoding="utf-8")
    return files


def _without(annotation: dict[str, Any], segments: set[int | None]) -> dict[str, Any]:
    return annotation | {"segments_info": [segment for segment in annotation["segments_info"] if segment["id"] not in segments]}
