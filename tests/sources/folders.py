"""The section `data.folder` of the tests of folders."""

from __future__ import annotations

from typing import Any

from detr_core.config import build
from detr_core.sources.config import FolderConfig


def folder_config(**values: Any) -> FolderConfig:
    split = {"images": "images", "instances": "labels", "panoptic": None, "panoptic_masks": None}
    content = {"root": "unused", "format": "yolo", "train": split, "val": None, "val_share": 0.5} | values
    return build(FolderConfig, content, "x.yaml")
