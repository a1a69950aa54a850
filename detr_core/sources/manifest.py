"""Describes the files of a dataset that is read in place in a small file, the manifest, so that DVC notices their changes.

The manifest identifies images by names, sizes and modification times, which takes a second where reading them would take
minutes. It identifies annotation files by their content.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from detr_core.checksums import digest
from detr_core.data.splits import DatasetError, Split

NAME = "manifest.json"


def write_manifest(folder: Path, root: Path, splits: dict[str, Split]) -> None:
    """Writes `folder/manifest.json` with the keys 'root' (the dataset's folder), 'train' and 'val'.

    A split has those of the keys 'images', 'instances', 'panoptic' and 'panoptic_masks' for which it has files. A file is
    described by `bytes` and `sha256`; a folder by `files`, `bytes` and `digest`, a sha256 over its files' names, sizes and times.
    Raises DatasetError if a file or folder can't be read.
    """
    descriptions: dict[Path, dict[str, Any]] = {}
    content: dict[str, Any] = {"root": str(root)}
    for name, split in splits.items():
        content[name] = {}
        for field in ("images", "instances", "panoptic", "panoptic_masks"):
            path: Path | None = getattr(split, field)
            if path is not None:
                if path not in descriptions:
                    descriptions[path] = _described(path)
                content[name][field] = descriptions[path]
    (folder / NAME).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns the manifest of a dataset folder; None if it has none, because the folder itself holds the images."""
    try:
        content = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("root"), str) else None


def _described(path: Path) -> dict[str, Any]:
    try:
        if path.is_file():
            return {"bytes": path.stat().st_size, "sha256": digest(path)}
        lines, size = [], 0
        for base, _, names in os.walk(path):
            for name in names:
                file = os.path.join(base, name)
                status = os.stat(file)
                size += status.st_size
                lines.append(f"{os.path.relpath(file, path)}\0{status.st_size}\0{status.st_mtime_ns}\n")
    except OSError as error:
        raise DatasetError(f"{path}: expected a file or folder that can be read: {error}") from None
    text = "".join(sorted(lines)).encode("utf-8", "surrogateescape")
    return {"files": len(lines), "bytes": size, "digest": hashlib.sha256(text).hexdigest()}
