"""This module is the data check: it reads every annotation and every image of a dataset once, and reports all faults."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detr_core.check.accounting import EntryCounts, count_entries, images_left_out
from detr_core.check.entries import Entries, ImageEntry, category_difference, category_names, check_entries
from detr_core.check.findings import Finding
from detr_core.check.pixels import CheckedImage, Faults, check_image, check_panoptic
from detr_core.check.statistics import Statistics, count
from detr_core.check.values import value_findings
from detr_core.data.fields import read_content
from detr_core.data.splits import DatasetError, Split, below_root
from detr_core.data.values import Range
from detr_core.reporter import Reporter
from detr_core.structures import category_labels
from detr_core.wording import counted


@dataclass(frozen=True)
class Inspection:
    """The result of a data check.

    findings: all faults, in the order of splits and images. statistics: split -> its statistics, which count panoptic segments
    if the split has them. supplied: (split, source) -> the numbers that this annotation file lists before anything is left out.
    value_ranges: sample type -> the values by which images of more than 8 bits per value are scaled; None without such images.
    """

    findings: list[Finding]
    statistics: dict[str, Statistics]
    supplied: dict[tuple[str, str], EntryCounts]
    value_ranges: dict[str, Range] | None = None


def inspect(splits: Mapping[str, Split], queries: int, reporter: Reporter, value_range: Range | None = None) -> Inspection:
    """Reads all annotations and images once, with one thread per processor for the images, and returns all findings.

    queries: the detector's number of queries; an image with more objects is a finding. value_range: the range by which images of
    more than 8 bits per value are scaled; None for the range of the dataset.
    Raises DatasetError for an annotation file that can't be read at all, or whose categories are malformed or differ between the
    files, because no entry could be left out to repair it.
    """
    findings: list[Finding] = []
    statistics: dict[str, Statistics] = {}
    supplied: dict[tuple[str, str], EntryCounts] = {}
    names: dict[str, dict[int, str]] = {}
    jobs: dict[str, dict[tuple[Path, tuple[int, int]], list[tuple[str, ImageEntry]]]] = {}
    entries: dict[tuple[str, str], Entries] = {}
    for split in splits.values():
        jobs[split.name] = defaultdict(list)
        for source in ("instances", "panoptic"):
            file: Path | None = getattr(split, source)
            if file is None:
                continue
            reporter.message(f"{split.name}: reading {file.name}")
            content = read_content(file)
            supplied[split.name, source] = count_entries(content, source)
            _require_same_categories(names, split.name, source, content, file)
            entries[split.name, source] = file_entries = check_entries(content, split.name, source)
            findings += file_entries.findings
            for image in file_entries.images.values():
                jobs[split.name][split.images / image.name, image.size].append((source, image))
    contents = _read_images({job: split.images.resolve() for split in splits.values() for job in jobs[split.name]}, reporter)
    for split in splits.values():
        for (path, size), image_entries in jobs[split.name].items():
            findings += [
                Finding(kind, split.name, "", image.id, image.name, detail=detail)
                for image in _once(image_entries)
                for kind, detail in contents[path, size].faults
            ]
        if (split.name, "panoptic") in entries:
            findings += _panoptic_findings(split, entries[split.name, "panoptic"], reporter)
    findings += _duplicates(splits, jobs, contents)
    ranges, value_faults = value_findings(jobs, contents, value_range)
    findings += value_faults
    for (name, source), file_entries in entries.items():
        _leave_out(file_entries, source, [finding for finding in findings if finding.split == name])
        statistics[name] = count(file_entries, names[source])
        findings += _many_objects(file_entries, name, source, queries)
        findings += _nothing_to_learn(file_entries, name, source)
    without_objects = [name for name, objects in statistics["train"].classes.items() if objects == 0]
    findings += [Finding("category_unused", "train", detail=name) for name in without_objects]
    findings += _repeated_names(max(names.values(), key=len))
    return Inspection(findings, statistics, supplied, ranges)


def _once(entries: Iterable[tuple[str, ImageEntry]]) -> Iterable[ImageEntry]:
    """Returns each image once, even if both annotation files of its split list it."""
    return {image.id: image for _, image in entries}.values()


def _leave_out(entries: Entries, source: str, findings: Iterable[Finding]) -> None:
    """Leaves out of `entries` what the findings of its split leave out, so that statistics count only what is used."""
    segments = [
        (finding.image_id, finding.segment)
        for finding in findings
        if source == "panoptic" and finding.kind == "panoptic_missing_segment"
        if finding.image_id is not None and finding.segment is not None
    ]
    entries.leave_out(images_left_out(findings), segments)


def _require_same_categories(
    names: dict[str, dict[int, str]], split: str, source: str, content: dict[str, Any], file: Path
) -> None:
    file_names = category_names(content, str(file))
    if source in names and (difference := category_difference({"train": names[source], split: file_names})):
        raise DatasetError(
            f"{file}: categories: expected the categories of the train split, but {difference}; write the same `categories` into "
            "both files, and use their ids in the annotations"
        )
    names[source] = file_names


def _read_images(
    jobs: Mapping[tuple[Path, tuple[int, int]], Path], reporter: Reporter
) -> dict[tuple[Path, tuple[int, int]], CheckedImage]:
    # Threads are enough, because Pillow and hashlib release the interpreter's lock. Processes would take seconds to start.
    contents: dict[tuple[Path, tuple[int, int]], CheckedImage] = {}
    start = time.monotonic()
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of damaged metadata and large images; the findings cover what matters
        running = {pool.submit(check_image, *job, jobs[job]): job for job in sorted(jobs)}
        for number_read, future in enumerate(as_completed(running), start=1):
            contents[running[future]] = future.result()
            if number_read % 50 == 0 or number_read == len(jobs):
                reporter.progress(number_read, len(jobs), number_read / max(time.monotonic() - start, 1e-9), "")
    return contents


def _panoptic_findings(split: Split, entries: Entries, reporter: Reporter) -> list[Finding]:
    folder = split.panoptic_masks
    assert folder is not None  # a split has both a panoptic file and a folder of PNGs, or neither
    resolved_folder = folder.resolve()

    def check(image_id: int) -> tuple[Faults, list[tuple[str, int, str]]]:
        _, name, segments = entries.panoptic[image_id]
        try:
            path = below_root(folder, name, "annotations.file_name")
        except DatasetError as error:
            return [("panoptic_png", str(error))], []
        return check_panoptic(path, entries.images[image_id].size, segments, resolved_folder)

    findings: list[Finding] = []
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number_checked, (image_id, (file_faults, segment_faults)) in enumerate(
            zip(entries.panoptic, pool.map(check, entries.panoptic), strict=True), start=1
        ):
            image, index = entries.images[image_id], entries.panoptic[image_id][0]
            findings += [
                Finding(kind, split.name, "panoptic", image_id, image.name, image.entry_index, detail=text)
                for kind, text in file_faults
            ]
            findings += [
                Finding(kind, split.name, "panoptic", image_id, image.name, index, number, detail=text)
                for kind, number, text in segment_faults
            ]
            if number_checked % 50 == 0 or number_checked == len(entries.panoptic):
                reporter.progress(
                    number_checked, len(entries.panoptic), number_checked / max(time.monotonic() - start, 1e-9), "panoptic PNGs"
                )
    return findings


def _many_objects(entries: Entries, split: str, source: str, queries: int) -> Iterable[Finding]:
    for image_id, objects in entries.objects.items():
        if len(objects) > queries:
            detail = f"{counted(len(objects), 'object')}, {counted(queries, 'query', 'queries')}"
            yield Finding("many_objects", split, source, image_id, entries.images[image_id].name, detail=detail)


def _nothing_to_learn(entries: Entries, split: str, source: str) -> Iterable[Finding]:
    if not any(entries.objects.values()):
        crowds = counted(sum(map(len, entries.crowds.values())), "crowd")
        detail = f"{counted(len(entries.images), 'image')}, {crowds}, no other object that is used"
        yield Finding("nothing_to_learn", split, source, detail=detail)


def _repeated_names(names: Mapping[int, str]) -> Iterable[Finding]:
    labels = category_labels(names)
    counts = Counter(names.values())
    for number, name in names.items():
        if counts[name] > 1:
            yield Finding("category_repeated", "train", detail=labels[number])


def _duplicates(
    splits: Mapping[str, Split],
    jobs: Mapping[str, Mapping[tuple[Path, tuple[int, int]], list[tuple[str, ImageEntry]]]],
    contents: Mapping[tuple[Path, tuple[int, int]], CheckedImage],
) -> Iterable[Finding]:
    """Yields findings for images of equal content: repetitions within a split, and training images that are in val too."""
    first_names: dict[str, dict[bytes, str]] = {name: {} for name in splits}
    for name, part in jobs.items():
        for job, image_entries in part.items():
            digest, image = contents[job].digest, image_entries[0][1]
            if digest is None:
                continue
            first_name = first_names[name].setdefault(digest, image.name)
            ids = {entry.id for _, entry in image_entries}
            if first_name != image.name or len(ids) > 1:
                yield Finding("duplicate_within", name, "", image.id, image.name, detail=f"the same as {first_name}")
    train, val = splits["train"], splits["val"]
    if (train.instances, train.panoptic) == (val.instances, val.panoptic):
        return  # a profile may use one set of images for both splits on purpose, to measure a published model
    for job, image_entries in jobs["train"].items():
        first_name = first_names["val"].get(contents[job].digest or b"", "")
        for image in _once(image_entries) if first_name else ():
            yield Finding("duplicate_across", "train", "", image.id, image.name, detail=f"the same as {first_name} of val")
