"""The page of the data check, for a small dataset that is broken in known places."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from detr_core.check.inspection import inspect
from detr_core.check.statistics import Statistics
from detr_core.data.splits import read_dataset
from detr_core.plots.data_check import _fitting, _objects_plot, write_data_check
from detr_core.plots.pictures import text_width
from detr_core.reporter import Silent
from tests.check.datasets import change, write_whole
from tests.plots.test_browser import CHROMIUM, OPTIONS
from tests.plots.test_page import Page


def page(folder: Path, out: Path, queries: int = 10, lenient: bool = True) -> str:
    """Returns the text of the check's page for the dataset in this folder."""
    splits = read_dataset(folder)
    out.mkdir()
    inspection = inspect(splits, queries, Silent())
    return write_data_check("cells", splits, inspection, queries, lenient, 2, out).read_text(encoding="utf-8")


def test_supplied_is_used_and_left_out(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "data", panoptic=False)
    (whole / "train" / "1.jpg").write_bytes(b"")
    change(whole, "train", "instances", lambda coco: coco["annotations"][1].update(bbox=[90, 6, 10, 12]))
    change(whole, "train", "instances", lambda coco: coco["annotations"][2].update(iscrowd=1, segmentation=[]))
    text = page(whole, tmp_path / "out")
    rows = [cells for _, cells in Page(text).rows]
    assert ["train images", "4", "3", "1"] in rows
    assert ["train objects", "4", "2", "2"] in rows
    assert ["val objects", "4", "4", "0"] in rows
    assert ["cat", "1", "4"] in rows, "the objects by class are the used ones that are not crowds"
    assert "all annotations and image files of 8 images" in text
    assert "<dt>train images used</dt><dd>3</dd>" in text
    assert "do not count 1 crowd, because" in text


def test_the_number_of_findings_and_of_their_images_is_shown(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "data", panoptic=False)
    (whole / "val" / "101.jpg").write_bytes(b"")
    for index in (0, 1, 2):
        change(whole, "train", "instances", lambda coco, index=index: coco["annotations"][index].update(bbox=[90, 6, 10, 12]))
    text = page(whole, tmp_path / "out")
    assert "<p>There is 1 such finding in 1 image.</p>" in text
    assert "<p>There are 3 such findings in 3 images. The pictures show the images with the most of them.</p>" in text


def test_a_title_that_is_too_long_keeps_the_split_and_the_ending() -> None:
    name = f"train: 10_jpg.rf.{'0123456789abcdef' * 2}.jpg"
    assert _fitting(name, 10_000, 12) == name
    short = _fitting(name, 200, 12)
    assert short.startswith("train: 10_jpg")
    assert "…" in short
    assert short.endswith(".jpg")
    assert text_width(short, 12) <= 200


def test_the_last_number_of_objects_has_a_whole_bar(tmp_path: Path) -> None:
    counts = {"train": Statistics({}, Counter({1: 3, 2: 1}))}
    svg = _objects_plot(counts, 10, tmp_path).read_text(encoding="utf-8")
    line = next(path for path in re.findall(r'<path d="([^"]+)"', svg) if path.count("L") == 7)
    edges = sorted({float(x) for x in re.findall(r"[ML] ([\d.]+)", line)})
    assert len(edges) == 4, "three bars have four edges"
    assert len({round(right - left, 3) for left, right in pairwise(edges)}) == 1


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_long_names_of_findings_leave_room_for_the_counts(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "data", panoptic=False)
    for image in (1, 2):
        change(whole, "train", "instances", lambda coco, image=image: coco["images"][image].update(id=2))
    change(whole, "train", "instances", lambda coco: coco["annotations"][0].update(area=0))
    assert "an image with the id of another image, so that" in page(whole, tmp_path / "out")
    assert CHROMIUM is not None
    where = [f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1200,1000", "--dump-dom"]
    address = (tmp_path / "out" / "index.html").as_uri()
    output = subprocess.run([CHROMIUM, *OPTIONS, *where, address], capture_output=True, text=True, timeout=120, check=True).stdout
    hints = re.findall(r'<p class="hint"[^>]*>', output)
    assert len(hints) == 5
    assert set(hints) == {'<p class="hint" hidden="">'}, "a table says that columns are out of sight"


def test_no_crowds_are_not_mentioned(tmp_path: Path) -> None:
    assert "crowd" not in page(write_whole(tmp_path / "data"), tmp_path / "out")
