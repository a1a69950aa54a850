"""Reads one XML file of Pascal VOC: the image and the objects that it describes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from detr_core.data.config import LARGEST_SIDE

DEEPEST = 50  # largest nesting depth of elements; Pascal VOC has 5


class XmlError(ValueError):
    """An XML file is not one of Pascal VOC, or it declares entities, which are never expanded."""


@dataclass(frozen=True)
class VocObject:
    """An object of an XML file.

    box: xywh, pixels. fault: why the object can't be used, else ''. An object with a fault may have no name and no box.
    """

    name: str
    difficult: bool
    box: tuple[float, float, float, float] | None
    fault: str


@dataclass(frozen=True)
class VocFile:
    """The content of an XML file. filename: the text of <filename>, or ''. size: (h, w), None without a valid size."""

    filename: str
    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]


def read_voc_xml(path: Path) -> VocFile:
    """Reads an annotation file of Pascal VOC. Raises XmlError if it is not one."""
    try:
        root = _parsed(path.read_bytes())
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:
        raise XmlError(f"expected Pascal VOC's XML: {error}") from None
    if root.tag != "annotation":
        raise XmlError(f"expected Pascal VOC's <annotation>, found <{root.tag[:40]}>")
    objects = tuple(_object(element) for element in root.findall("object"))
    return VocFile(_text(root, "filename").replace("\\", "/").rpartition("/")[2], _size(root), objects)


def is_voc_xml(path: Path) -> bool:
    """Returns whether the beginning of the file looks like Pascal VOC's XML."""
    try:
        with path.open("rb") as file:
            return b"<annotation" in file.read(4096).replace(b"\0", b"")
    except (OSError, ValueError):
        return False


def _parsed(text: bytes) -> ElementTree.Element:
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise XmlError(f"expected elements nested at most {DEEPEST} deep, found deeper ones")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise XmlError("expected no document type and no entities, found a declaration")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.Parse(text, True)
    return builder.close()


def _object(element: ElementTree.Element) -> VocObject:
    name, difficult = _text(element, "name"), _text(element, "difficult") == "1"
    if not name:
        return VocObject(name, difficult, None, "<object>: expected a <name>, found none")
    box = element.find("bndbox")
    if box is None:
        return VocObject(name, difficult, None, f"<object> {name[:40]!r}: expected a <bndbox>, found none")
    corners = []
    for field in ("xmin", "ymin", "xmax", "ymax"):
        text = _text(box, field)
        number = _number(text)
        if number is None:
            return VocObject(name, difficult, None, f"<object> {name[:40]!r}: {field}: expected a number, found {text[:40]!r}")
        corners.append(number)
    left, top, right, bottom = corners
    # Pascal VOC counts pixels from 1, and the last pixel belongs to the box.
    return VocObject(name, difficult, (left - 1, top - 1, right - left + 1, bottom - top + 1), "")


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    size = root.find("size")
    numbers = [_number(_text(size, field)) if size is not None else None for field in ("height", "width")]
    height, width = numbers
    if height is None or width is None or not all(side == int(side) and 1 <= side <= LARGEST_SIDE for side in (height, width)):
        return None
    return int(height), int(width)


def _text(element: ElementTree.Element, tag: str) -> str:
    return " ".join((element.findtext(tag) or "").split())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) < 2**53 else None
