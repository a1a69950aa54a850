"""The manifest of a dataset that is read in place changes with every change of its files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detr_core.sources.manifest import read_manifest, write_manifest

Change = Callable[[Any], None]


def longer(split: Any) -> None:
    (split.images / "1.png").write_bytes(b"another picture")


def touched(split: Any) -> None:
    os.utime(split.images / "1.png", (1, 1))


def gone(split: Any) -> None:
    (split.images / "2.png").unlink()


def added(split: Any) -> None:
    (split.images / "below").mkdir()
    (split.images / "below" / "3.png").touch()


def reworded(split: Any) -> None:
    # As many bytes, at the same time.
    status = split.instances.stat()
    split.instances.write_text(split.instances.read_text().replace("cat", "dog"))
    os.utime(split.instances, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_the_manifest_describes_the_files(write_split: Callable[..., Any], noise: Callable[..., Any], tmp_path: Path) -> None:
    split = write_split([noise(4, 6), noise(5, 6)], [])
    write_manifest(tmp_path, tmp_path, {"val": split})
    content = read_manifest(tmp_path)
    assert content is not None
    assert content["val"]["images"]["files"] == 2
    assert content["val"]["images"]["bytes"] == sum(file.stat().st_size for file in split.images.iterdir())
    assert content["val"]["instances"]["bytes"] == split.instances.stat().st_size
    assert set(content["val"]) == {"images", "instances"}
    write_manifest(tmp_path, tmp_path, {"val": split})
    assert read_manifest(tmp_path) == content
    assert json.loads((tmp_path / "manifest.json").read_text()) == content


@pytest.mark.parametrize("change", [longer, touched, gone, added, reworded])
def test_every_change_is_seen(change: Change, write_split: Callable[..., Any], noise: Callable[..., Any], tmp_path: Path) -> None:
    split = write_split([noise(4, 6), noise(5, 6)], [])
    write_manifest(tmp_path, tmp_path, {"val": split})
    before = read_manifest(tmp_path)
    change(split)
    write_manifest(tmp_path, tmp_path, {"val": split})
    assert read_manifest(tmp_path) != before


def test_a_dataset_that_holds_its_own_images_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
