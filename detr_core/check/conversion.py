"""Makes findings of the data check from the notes that a conversion from YOLO or Pascal VOC leaves in annotation entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from detr_core.check.findings import Finding
from detr_core.sources.formats.conversion import DROPPED, FAULT


def conversion_findings(content: dict[str, Any], findings: Sequence[Finding], split: str, source: str) -> list[Finding]:
    """Returns the findings of an annotation file, completed by the notes of its conversion.

    An entry that could not be converted is a finding like any malformed entry; the note, which names the file and the line of
    the label, becomes the finding's detail. A malformed image entry has no usable label file, and its finding names that cause.
    Objects whose label was converted only in part become findings too.
    """
    completed = []
    for finding in findings:
        entries = content["images" if finding.leaves == "image" else "annotations"]
        malformed = finding.leaves is not None  # other findings may have an index into the other list
        reason = _note(entries[finding.entry_index], FAULT) if malformed and finding.entry_index is not None else None
        if reason is not None:
            kind = "image_labels" if finding.kind == "image_entry" else finding.kind
            finding = replace(finding, kind=kind, detail=reason)
        completed.append(finding)
    names = {
        entry.get("id"): str(entry.get("file_name", ""))
        for entry in content["images"]
        if isinstance(entry, dict) and type(entry.get("id")) is int
    }
    for index, entry in enumerate(content["annotations"]):
        if (note := _note(entry, DROPPED)) is not None and type(number := entry.get("image_id")) is int:
            completed.append(Finding("columns_left_out", split, source, number, names.get(number, ""), index, detail=note))
    return completed


def unreadable_images(content: dict[str, Any], split: str, source: str) -> list[Finding]:
    """Returns a finding for each image whose file the conversion could not read."""
    return [
        Finding("image_unreadable", split, source, entry["id"], entry["file_name"], index, detail=note)
        for index, entry in enumerate(content["images"])
        if (note := _note(entry, FAULT)) is not None and entry.get("height") is not None
    ]


def _note(entry: Any, field: str) -> str | None:
    note = entry.get(field) if isinstance(entry, dict) else None
    return note if isinstance(note, str) else None
