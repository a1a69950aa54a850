"""Converts annotations in Pascal VOC's format to the content of COCO annotation files."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detr_core.data.config import SplitConfig
from detr_core.data.images import upright_size
from detr_core.data.splits import DatasetError, below_root
from detr_core.sources.formats.conversion import FAULT
from detr_core.sources.formats.voc_xml import VocFile, XmlError, is_voc_xml, read_voc_xml
from detr_core.sources.image_entries import SIZE_READ
from detr_core.sources.picture_files import files_below, is_file, picture_files, read_lines

Files = Mapping[str, "VocFile | str"]  # path below the folder of XML files, without ending -> its content, or its fault

SAMPLE = 20  # to find the folder of the images, the <filename> of this many XML files is looked for


@dataclass(frozen=True)
class Pictures:
    """The image files of a folder. by_stem: name without ending -> names with ending, because several may differ only in it."""

    folder: Path
    by_stem: Mapping[str, Sequence[str]]

    def of(self, stem: str, filename: str) -> tuple[str, str]:
        """Returns the name of the image of `stem`.xml, and a fault if several images match.

        In Pascal VOC an XML file and its image have the same name. This name has priority over `filename`, the text of the
        element <filename>, because tools do not update that element when they rename files. If no image exists, the expected
        name is returned.
        """
        same = self.by_stem.get(stem, ())
        if len(same) == 1:
            return same[0], ""
        path = (stem.rpartition("/")[0] + "/" if "/" in stem else "") + filename
        if filename and (path in same or (not same and is_file(self.folder / path))):
            return path, ""
        if same:
            return same[0], f"expected one image for {stem}.xml, found {' and '.join(same[:2])}"
        return (path if os.path.splitext(filename)[1] else f"{stem}.jpg"), ""


def read_voc(root: Path, splits: Mapping[str, SplitConfig]) -> dict[str, dict[str, Any]]:
    """Returns split -> the content of its COCO annotation file. Objects that are marked `difficult` become crowds.

    splits: `instances` is a folder of XML files, or a list of image names such as `ImageSets/Main/train.txt`, one name per line,
    whose XML files are in the folder `Annotations` above it. The classes are those of all XML files, sorted by name, so they are
    the same for every split. An entry that can't be converted keeps its place and gets the reason in its field
    `conversion_fault`, which the data check reports.
    Raises DatasetError, which names the file or folder, for a split without images.
    """
    folders = {name: xml_folder(root, split) for name, split in splits.items()}
    files: dict[Path, Files] = {folder: _read_all(folder, root) for folder in set(folders.values())}
    all_files = [file for by_stem in files.values() for file in by_stem.values() if isinstance(file, VocFile)]
    names = sorted({voc_object.name for file in all_files for voc_object in file.objects if voc_object.name})
    if not names:
        raise DatasetError(f"{' and '.join(map(str, sorted(files)))}: expected objects with names in the XML files, found none")
    return {name: _content(root, split, files[folders[name]], names) for name, split in splits.items()}


def voc_images(root: Path, split: SplitConfig) -> list[str]:
    """Returns the names of a split's images without endings. Raises DatasetError for a list or a folder without images."""
    assert split.instances is not None  # FolderConfig requires it
    source, folder = below_root(root, split.instances, "instances"), xml_folder(root, split)
    stems = {name[: -len(".xml")] for name in files_below(folder) if _is_xml(folder / name)}
    if source.is_dir():
        return sorted(stems)
    if not source.is_file():
        raise DatasetError(f"{source}: expected a folder of XML files or a list of image names, found no file or folder")
    known_names = stems | {os.path.splitext(name)[0] for name in picture_files(below_root(root, split.images, "images"))}
    names = list(dict.fromkeys(_name_in_line(line, known_names) for line in read_lines(source)))
    if not names:
        raise DatasetError(f"{source}: expected image names, one per line, found none")
    return names


def has_images(folder: Path, annotations: Path) -> bool:
    """Returns whether the folder has an image of one of the XML files in the folder `annotations`."""
    if not folder.is_dir():
        return False
    pictures = _pictures(folder)
    stems = [name[: -len(".xml")] for name in files_below(annotations) if _is_xml(annotations / name)]
    return any(stem in pictures.by_stem for stem in stems) or any(
        is_file(folder / pictures.of(stem, _filename(annotations, stem))[0]) for stem in stems[:SAMPLE]
    )


def missing_images(root: Path, split: SplitConfig) -> tuple[list[str], int]:
    """Returns the names of a split's images that do not exist, below its folder of images, and the number of all its images."""
    stems, annotations = voc_images(root, split), xml_folder(root, split)
    pictures = _pictures(below_root(root, split.images, "images"))
    names = [pictures.of(stem, _filename(annotations, stem))[0] for stem in stems if stem not in pictures.by_stem]
    return [name for name in names if not is_file(pictures.folder / name)], len(stems)


def _filename(annotations: Path, stem: str) -> str:
    """Returns the text of the element <filename> of an XML file; '' if the file cannot be read."""
    try:
        return read_voc_xml(annotations / f"{stem}.xml").filename
    except XmlError:
        return ""


def _pictures(folder: Path) -> Pictures:
    by_stem: dict[str, list[str]] = defaultdict(list)
    for picture in picture_files(folder):
        by_stem[os.path.splitext(picture)[0]].append(picture)
    return Pictures(folder, by_stem)


def xml_folder(root: Path, split: SplitConfig) -> Path:
    """Returns the folder of a split's XML files. Raises DatasetError if there is none."""
    source = below_root(root, split.instances or "", "instances")
    if source.is_dir():
        return source
    for above in source.parents:
        if above.is_dir():
            for subfolder in sorted(above.iterdir()):
                if subfolder.name.lower() == "annotations" and subfolder.is_dir():
                    return subfolder
        if above == root:
            break
    raise DatasetError(f"{source}: expected a folder `Annotations` with XML files above this list, below {root}, found none")


def _name_in_line(line: str, known_names: set[str]) -> str:
    """Returns the image name in a line of a list: the line if it is a known name, else without ending, folder or flag."""
    line = line.replace("\\", "/")
    without_flag = re.sub(r"\s+-?[01]$", "", line)
    for text in (line, without_flag):
        for name in (text, os.path.splitext(text)[0], text.rpartition("/")[2], os.path.splitext(text.rpartition("/")[2])[0]):
            if name in known_names:
                return name
    return without_flag


def _is_xml(path: Path) -> bool:
    return path.name.lower().endswith(".xml") and path.is_file()


def _read_all(folder: Path, root: Path) -> Files:
    files: dict[str, VocFile | str] = {}
    for name in files_below(folder):
        path = folder / name
        if not _is_xml(path):
            continue
        stem = name[: -len(".xml")]
        try:
            if stem in files:
                raise XmlError(
                    "expected one XML file of this name, found a second one that differs only in the case of its ending"
                )
            files[stem] = read_voc_xml(path)
        except XmlError as error:
            if not is_voc_xml(path) and path.stat().st_size and "/" in name:
                continue  # XML of another kind in a subfolder
            files[stem] = f"{path.relative_to(root)}: {error}"
    return files


def _content(root: Path, split: SplitConfig, files: Files, names: Sequence[str]) -> dict[str, Any]:
    folder = below_root(root, split.images, "images")
    if not folder.is_dir():
        raise DatasetError(f"{folder}: expected the folder of the images, found none")
    pictures = _pictures(folder)
    where = (xml_folder(root, split) / "x").parent.relative_to(root)
    categories = {name: number for number, name in enumerate(names, start=1)}
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for stem in voc_images(root, split):
        file = files.get(stem, f"{split.instances}: {stem!r} has no {where / stem}.xml")
        number = len(images) + 1
        if isinstance(file, str):
            images.append(_image(number, pictures.of(stem, "")[0], None) | {FAULT: file})
            continue
        name, unclear = pictures.of(stem, file.filename)
        images.append(_sized(number, name, file, folder) | ({"width": None, FAULT: unclear} if unclear else {}))
        for voc_object in file.objects:
            entry: dict[str, Any] = {"id": len(objects) + 1, "image_id": number, "iscrowd": int(voc_object.difficult)}
            entry |= {
                "category_id": categories.get(voc_object.name),
                "bbox": None if voc_object.box is None else list(voc_object.box),
            }
            if voc_object.box is not None:
                entry["area"] = voc_object.box[2] * voc_object.box[3]
            if voc_object.fault:
                entry[FAULT] = f"{where / stem}.xml: {voc_object.fault}"
            objects.append(entry)
    if not images:
        raise DatasetError(f"{where}: expected XML files, found none")
    return {
        "images": images,
        "annotations": objects,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def _image(number: int, name: str, size: tuple[int, int] | None) -> dict[str, Any]:
    height, width = size or (None, None)
    return {"id": number, "file_name": name, "height": height, "width": width}


def _sized(number: int, name: str, file: VocFile, folder: Path) -> dict[str, Any]:
    """Returns the image's entry. If the XML file states no valid size, the entry has the size of the image file."""
    if file.size is not None:
        return _image(number, name, file.size)
    try:
        return _image(number, name, upright_size(folder / name)) | {SIZE_READ: True}
    except DatasetError as error:  # the data check reports the broken file; 1 x 1 is a placeholder
        return _image(number, name, (1, 1)) | {FAULT: str(error)}
