"""Fixtures that write small COCO datasets for the tests that read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detr_core.data.splits import Split
from tests.real_data import REAL

Writer = Callable[..., Split]


@pytest.fixture
def write_split(tmp_path: Path) -> Writer:
    """Returns a function that writes a split.

    Its arguments are the images, as arrays [h, w, 3] or (name, (h, w)) of existing files, the annotations, and panoptic id maps.
    """

    def write(
        images: list[Any],
        instances: list[dict[str, Any]] | None = None,
        panoptic: list[dict[str, Any]] | None = None,
        id_maps: list[Any] | None = None,
        categories: list[dict[str, Any]] | None = None,
    ) -> Split:
        categories = categories or [
            {"id": 7, "name": "sky", "isthing": 0},
            {"id": 2, "name": "cat", "isthing": 1},
            {"id": 5, "name": "dog", "isthing": 1},
        ]
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "segments").mkdir(exist_ok=True)
        entries = []
        for number, image in enumerate(images, start=1):
            name, size = image if isinstance(image, tuple) else (f"{number}.png", image.shape[:2])
            if not isinstance(image, tuple):
                Image.fromarray(image).save(tmp_path / "images" / name)
            entries.append({"id": number, "file_name": name, "height": size[0], "width": size[1]})
        for annotation, ids in zip(panoptic or [], id_maps or [], strict=True):
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
            Image.fromarray(rgb).save(tmp_path / "segments" / annotation["file_name"])
        files: dict[str, Path | None] = {"instances": None, "panoptic": None}
        for kind, objects in (("instances", instances), ("panoptic", panoptic)):
            if objects is not None:
                path = tmp_path / f"{kind}.json"
                # The last image first: the order in a file must not matter.
                content = {"images": entries[::-1], "annotations": objects, "categories": categories}
                path.write_text(json.dumps(content))
                files[kind] = path
        return Split(
            "val", tmp_path / "images", files["instances"], files["panoptic"], tmp_path / "segments" if panoptic else None
        )

    return write


@pytest.fixture
def real_data() -> Path:
    """Returns the folder of real images; skips the test if there is none."""
    if not REAL.is_dir():
        pytest.skip(f"no real images at {REAL}; set DETR_REAL_DATA to a folder that has them")
    return REAL


@pytest.fixture
def noise() -> Callable[..., Any]:
    """Returns a function that makes uint8 RGB pictures [height, width, 3], no two parts of which look the same."""

    def make(height: int, width: int, seed: int = 0) -> Any:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make
