"""A lenient check leaves broken entries out of the dataset, and every number counts the same entries."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_core.check.accounting import accounts, source_counted
from detr_core.check.inspection import Inspection
from detr_core.check.leave_out import write_checked
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import DatasetError, read_dataset, read_dataset_file
from tests.check.datasets import change, content, inspected, write_whole


def test_no_annotation_files_are_written_if_nothing_is_left_out(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "dataset"
    out.mkdir(parents=True)
    write_checked(whole, [], out)
    assert {path.name for path in out.iterdir()} == {"dataset.json"}
    assert read_dataset_file(out).root == "../../data", "so that both can be moved together"
    assert read_dataset(out) == read_dataset(whole)


def test_an_image_is_removed_from_both_files_with_its_annotations(whole: Path, tmp_path: Path) -> None:
    (whole / "train" / "2.jpg").unlink()
    change(whole, "train", "instances", lambda coco: coco["annotations"][2].update(bbox=[4, 6, 0, 0]))
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    (tmp_path / "out").mkdir()
    write_checked(whole, inspected(whole).findings, tmp_path / "out")
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}, "the originals stay"
    annotations = tmp_path / "out" / "annotations"
    assert [image["id"] for image in content("train", "instances", annotations)["images"]] == [1, 3, 4]
    assert [entry["id"] for entry in content("train", "instances", annotations)["annotations"]] == [1, 4]
    assert [entry["image_id"] for entry in content("train", "panoptic", annotations)["annotations"]] == [1, 3, 4]
    assert content("val", "panoptic", annotations) == content("val", "panoptic", whole)


def require_one_account(folder: Path, out: Path, inspection: Inspection) -> None:
    """Asserts that the statistics, the account and `left_out` of a checked dataset have the same numbers."""
    splits = read_dataset(folder)
    metrics = accounts(splits, inspection.supplied, read_dataset(out), inspection.findings)
    for name, split in splits.items():
        statistics = inspection.statistics[name]
        used = {"images": sum(statistics.objects.values()), "objects": sum(statistics.sides.values()) + statistics.crowds}
        for entries, number in used.items():
            account = f"account/{name}/{source_counted(split)}/{entries}"
            assert number == metrics[f"{account}/used"]
            assert number + metrics[f"left_out/{name}/{entries}"] == metrics[f"{account}/supplied"]


def test_objects_and_crowds_of_an_image_that_is_left_out_are_not_counted(whole: Path, tmp_path: Path) -> None:
    (whole / "train" / "1.jpg").write_bytes(b"")
    for index in (0, 1):
        change(whole, "train", "panoptic", lambda coco, index=index: coco["annotations"][index]["segments_info"][0].update(
            iscrowd=1))  # fmt: skip
    change(whole, "train", "panoptic", lambda coco: coco["annotations"][2]["segments_info"].append(
        {"id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}))  # fmt: skip
    change(whole, "train", "panoptic", lambda coco: coco["annotations"][3]["segments_info"].append(
        {"id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 1}))  # fmt: skip
    inspection = inspected(whole)
    assert [finding.kind for finding in inspection.findings] == ["image_empty", *["panoptic_missing_segment"] * 2]
    train = inspection.statistics["train"]
    assert (train.classes, train.crowds, dict(train.objects)) == ({"cat": 2, "sky": 3}, 1, {1: 1, 2: 2})
    (tmp_path / "out").mkdir()
    write_checked(whole, inspection.findings, tmp_path / "out")
    require_one_account(whole, tmp_path / "out", inspection)


def test_a_crowd_with_a_broken_box_is_not_counted_as_a_crowd(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    for index, box in ((0, [4, 6, 10, 12]), (1, [4, 6, 0, 12])):
        change(folder, "train", "instances", lambda coco, index=index, box=box: coco["annotations"][index].update(
            iscrowd=1, bbox=box, segmentation=[]))  # fmt: skip
    inspection = inspected(folder)
    assert (inspection.statistics["train"].crowds, inspection.statistics["train"].classes) == (1, {"cat": 2})
    (tmp_path / "out").mkdir()
    write_checked(folder, inspection.findings, tmp_path / "out")
    require_one_account(folder, tmp_path / "out", inspection)


def test_a_split_with_no_image_left_is_an_error(whole: Path, tmp_path: Path) -> None:
    for image in (whole / "val").iterdir():
        image.write_bytes(b"")
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match=r"instances_val\.json: expected at least one valid image"):
        write_checked(whole, inspected(whole).findings, tmp_path / "out")


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 400), st.floats(), st.text(max_size=4), st.lists(st.floats(-50, 50), max_size=7)
)


ENTRIES = st.tuples(
    st.sampled_from(["instances", "panoptic"]), st.sampled_from(["images", "annotations", "segments"]), st.integers(0, 3)
)


FIELDS = st.sampled_from(
    ["id", "image_id", "category_id", "bbox", "segmentation", "file_name", "height", "width", "area", "segments_info", "iscrowd"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ENTRIES, FIELDS, VALUES), min_size=1, max_size=4))
def test_the_dataset_without_broken_entries_can_be_read_for_any_file_content(
    faults: list[tuple[tuple[str, str, int], str, Any]],
) -> None:
    with TemporaryDirectory() as temporary:
        folder = write_whole(Path(temporary) / "data")
        for (source, part, index), field, value in faults:

            def edit(coco: dict[str, Any], part: str = part, index: int = index, field: str = field, value: Any = value) -> None:
                entry = coco["images" if part == "images" else "annotations"][index]
                segments = entry.get("segments_info")
                if part == "segments" and isinstance(segments, list) and segments:
                    entry = segments[index % len(segments)]
                if isinstance(entry, dict):  # an earlier fault may have put something else in its place
                    entry[field] = value

            change(folder, "train", source, edit)
        out = Path(temporary) / "out"
        out.mkdir()
        inspection = inspected(folder)
        try:
            write_checked(folder, inspection.findings, out)
        except DatasetError as error:
            assert "expected at least one valid image" in str(error)  # noqa: PT017
            return
        assert not [finding for finding in inspected(out).findings if finding.leaves is not None]
        require_one_account(folder, out, inspection)
        split = read_dataset(out)["train"]
        for targets in ("instances", "panoptic"):
            dataset = CocoDataset(split, targets, targets == "panoptic", None, 0)  # type: ignore[arg-type]
            assert [len(dataset[index].target.labels) for index in range(len(dataset))]
