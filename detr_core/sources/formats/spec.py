"""Lists the formats of annotations that are converted to COCO's. A row of `FORMATS` holds what the project has to know about one.

A new format is a module beside this file and a row. This module imports none of them: the function of a row imports the code of
its format when it is called, because that takes seconds. COCO and YOLO have no row. COCO's files are used as they are, and a YOLO
dataset has a description in YAML, which the core can't read; flows/new_profile/yolo_layout.py reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detr_core.data.config import SplitConfig

Splits = dict[str, dict[str, Any]]
"""'train' and, if there is one, 'val' -> the entry of the split in the section `data.folder`, as `split_entry` returns it."""


@dataclass(frozen=True)
class FormatFunctions:
    """The functions that find and read a dataset.

    folders: lists the folders, among a folder and those below it, that have annotation files of the format directly in them.
    layout: (a dataset's folder, the result of `folders`) -> the splits, and notes for the user on how they were chosen. It
    raises DatasetError if it is not clear which images are for training.
    read: (a dataset's folder, the splits) -> split -> the content of the split's COCO annotation file with boxes. An entry that
    can't be converted keeps its place and gets the reason in its field `conversion_fault`, which the data check reports. The
    function raises DatasetError for a split without images.
    """

    folders: Callable[[Path], list[Path]]
    layout: Callable[[Path, list[Path]], tuple[Splits, list[str]]]
    read: Callable[[Path, Mapping[str, SplitConfig]], dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Format:
    """A format of annotations. title: its name, and files: its files, both for messages. functions: imports its functions."""

    title: str
    files: str
    functions: Callable[[], FormatFunctions]


def _voc() -> FormatFunctions:
    from detr_core.sources.formats.voc import read_voc
    from detr_core.sources.formats.voc_layout import voc_folders, voc_layout

    return FormatFunctions(voc_folders, voc_layout, read_voc)


FORMATS: dict[str, Format] = {
    "voc": Format("Pascal VOC", "Pascal VOC's Annotations", _voc),
}
KNOWN = ("coco", "yolo", *FORMATS)  # the values of `data.folder.format`
