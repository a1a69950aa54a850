"""The page of the data check, for a small dataset that is broken in known places."""

from __future__ import annotations

from pathlib import Path

from detr_core.check.inspect import inspect
from detr_core.data.dataset import read_dataset
from detr_core.figures.data_check import write_data_check
from detr_core.reporter import Silent
from tests.check.datasets import change, write_whole
from tests.figures.test_page import Page


def page(folder: Path, out: Path, queries: int = 10, lenient: bool = True) -> str:
    """The text of the page for the dataset in this folder."""
    splits = read_dataset(folder)
    out.mkdir()
    found = inspect(splits, queries, Silent())
    return write_data_check("cells", splits, found, queries, lenient, 2, out).read_text(encoding="utf-8")


def test_supplied_is_used_and_left_out(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "data", panoptic=False)
    (whole / "train" / "1.jpg").write_bytes(b"")
    change(whole, "train", "instances", lambda found: found["annotations"][1].update(bbox=[90, 6, 10, 12]))
    change(whole, "train", "instances", lambda found: found["annotations"][2].update(iscrowd=1, segmentation=[]))
    text = page(whole, tmp_path / "out")
    rows = [cells for _, cells in Page(text).rows]
    assert ["train images", "4", "3", "1"] in rows
    assert ["train objects", "4", "2", "2"] in rows
    assert ["val objects", "4", "4", "0"] in rows
    assert ["cat", "1", "4"] in rows, "the objects by class are the used ones that are not crowds"
    assert "all annotations and image files of 8 images" in text
    assert "<dt>train images</dt><dd>3</dd>" in text
    assert "do not count 1 crowd, because" in text


def test_no_crowds_are_not_mentioned(tmp_path: Path) -> None:
    assert "crowd" not in page(write_whole(tmp_path / "data"), tmp_path / "out")
