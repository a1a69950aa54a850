"""Findings on the files of images: each fault in a small dataset that has only this fault."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detr_core.check.inspection import inspect
from detr_core.check.leave_out import write_checked
from detr_core.data.splits import read_dataset
from detr_core.reporter import Silent
from tests.check.datasets import HEIGHT, WIDTH, content, cut, inspected, kinds, linked, write_whole

IMAGE_FAULTS: dict[str, Callable[[Path], object]] = {
    "image_missing": lambda path: path.unlink(),
    "image_link": lambda path: linked(path, path.parents[1] / "secret.jpg"),
    "image_empty": lambda path: path.write_bytes(b""),
    "image_truncated": lambda path: cut(path, path.stat().st_size // 2),
    "image_unreadable": lambda path: path.write_bytes(b"no image" * 50),
    "image_size": lambda path: Image.new("RGB", (WIDTH + 1, HEIGHT)).save(path),
}


@pytest.mark.parametrize("kind", IMAGE_FAULTS)
def test_a_faulty_image_is_reported(whole: Path, kind: str) -> None:
    IMAGE_FAULTS[kind](whole / "train" / "2.jpg")
    findings = inspected(whole).findings
    once = [(finding.kind, finding.split, finding.image_id, finding.file) for finding in findings]
    assert once == [(kind, "train", 2, "2.jpg")], "one image is one finding, also if both annotation files list it"


def test_a_path_that_is_not_a_file_is_not_read(whole: Path) -> None:
    for name in ("2.jpg", "3.jpg"):
        (whole / "train" / name).unlink()
    os.mkfifo(whole / "train" / "2.jpg")
    (whole / "train" / "3.jpg").symlink_to("/dev/zero")
    findings = [(finding.kind, finding.detail) for finding in inspected(whole).findings]
    assert findings == [("image_unreadable", "not a file"), ("image_link", "a link to /dev/zero")]


def test_a_link_within_its_folder_or_into_a_cache_counts_as_a_copy(whole: Path, tmp_path: Path) -> None:
    linked(whole / "train" / "2.jpg", whole / "train" / "more" / "2.jpg")
    linked(whole / "train" / "3.jpg", tmp_path / "cache" / "files" / "md5" / "0a" / ("1b" * 15))
    linked(whole / "val", tmp_path / "disk" / "val")  # a folder that a profile names may be a link itself
    assert kinds(whole) == set()
    linked(whole / "panoptic_train" / "1.png", tmp_path / "1.png")
    assert [(finding.kind, finding.detail) for finding in inspected(whole).findings] == [
        ("panoptic_png", f"1.png: a link to {tmp_path / '1.png'}")
    ]


def test_an_image_turned_by_its_exif_entry_may_be_annotated_either_way(whole: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((HEIGHT, WIDTH), 50).save(whole / "train" / "2.jpg", exif=exif)
    assert kinds(whole) == set()


def test_copies_within_a_split_and_between_splits_are_reported(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / "train" / "1.jpg", whole / "train" / "3.jpg")
    shutil.copy(whole / "train" / "1.jpg", whole / "val" / "102.jpg")
    findings = inspected(whole).findings
    within = [(finding.file, finding.detail) for finding in findings if finding.kind == "duplicate_within"]
    assert within == [("3.jpg", "the same as 1.jpg")]
    across = [(finding.split, finding.file, finding.detail) for finding in findings if finding.kind == "duplicate_across"]
    assert across == [("train", "1.jpg", "the same as 102.jpg of val"), ("train", "3.jpg", "the same as 102.jpg of val")]
    (tmp_path / "checked").mkdir()
    write_checked(whole, findings, tmp_path / "checked")
    checked = content("train", "instances", tmp_path / "checked" / "annotations")
    assert [image["id"] for image in checked["images"]] == [2, 4]
    assert [entry["image_id"] for entry in checked["annotations"]] == [2, 4]


def test_deep_and_constant_images_are_found_with_the_range_of_the_set(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    ramp = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    for number, values in ((1, ramp), (2, 3 * ramp + 100), (3, np.full_like(ramp, 9000))):
        Image.fromarray(values).save(folder / "train" / f"{number}.jpg", format="PNG")
    Image.new("L", (WIDTH, HEIGHT), 7).save(folder / "val" / "101.jpg")
    inspection = inspected(folder)
    assert inspection.value_ranges == {"16-bit": (1.0, 100 + 3 * 766.0)}, "a thousandth of 768 values is left out at either end"
    findings = [(finding.kind, finding.file) for finding in inspection.findings]
    assert findings == [
        ("image_deep", "1.jpg"), ("image_deep", "2.jpg"), ("image_deep", "3.jpg"), ("image_constant", "3.jpg"),
        ("image_constant", "101.jpg"),
    ]  # fmt: skip
    with_own_range = inspect(read_dataset(folder), 100, Silent(), (0, 4095))
    assert with_own_range.value_ranges == {"16-bit": (0, 4095)}
    deep = [finding.detail for finding in with_own_range.findings if finding.kind == "image_deep"]
    assert deep[0] == "16-bit values of 1 to 766; 0 to 4095 become 0 to 255"
