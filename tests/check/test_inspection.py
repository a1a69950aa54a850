"""Each kind of finding, on a small dataset with only this fault, and the result of a lenient check."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hotcoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detr_core.check.accounting import accounts, source_counted
from detr_core.check.findings import KINDS, Finding
from detr_core.check.inspection import Inspection, inspect
from detr_core.check.leave_out import write_checked
from detr_core.check.outlines import outline_fault
from detr_core.data.coco_dataset import CocoDataset
from detr_core.data.splits import DatasetError, read_dataset, read_dataset_file
from detr_core.reporter import Memory, Silent
from tests.check.datasets import HEIGHT, WIDTH, change, content, write_whole


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_whole(tmp_path / "data")


def inspected(folder: Path, queries: int = 100) -> Inspection:
    return inspect(read_dataset(folder), queries, Silent())


def kinds(folder: Path) -> set[str]:
    return {finding.kind for finding in inspected(folder).findings}


def test_nothing_is_wrong_with_a_whole_dataset(whole: Path) -> None:
    told = Memory()
    found = inspect(read_dataset(whole), 2, told)
    assert found.findings == []
    assert told.last_progress == (4, 4), "the val split's panoptic PNGs come last"
    train = found.statistics["train"]
    assert train.classes == {"cat": 4, "sky": 4}
    assert dict(train.objects) == {2: 4}
    assert dict(train.sides) == {11: 4, 28: 4}
    assert dict(train.sizes) == {(HEIGHT, WIDTH): 4}


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def linked(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
    path.symlink_to(place)


IMAGE_FAULTS: dict[str, Callable[[Path], object]] = {
    "image_missing": lambda path: path.unlink(),
    "image_link": lambda path: linked(path, path.parents[1] / "secret.jpg"),
    "image_empty": lambda path: path.write_bytes(b""),
    "image_truncated": lambda path: cut(path, path.stat().st_size // 2),
    "image_unreadable": lambda path: path.write_bytes(b"no image" * 50),
    "image_size": lambda path: Image.new("RGB", (WIDTH + 1, HEIGHT)).save(path),
}


@pytest.mark.parametrize("kind", IMAGE_FAULTS)
def test_an_image_that_is_not_as_it_should_be(whole: Path, kind: str) -> None:
    IMAGE_FAULTS[kind](whole / "train" / "2.jpg")
    found = inspected(whole).findings
    once = [(each.kind, each.split, each.image_id, each.file) for each in found]
    assert once == [(kind, "train", 2, "2.jpg")], "one image is one finding, also if both annotation files list it"


def test_what_is_no_file_is_not_read(whole: Path) -> None:
    for name in ("2.jpg", "3.jpg"):
        (whole / "train" / name).unlink()
    os.mkfifo(whole / "train" / "2.jpg")
    (whole / "train" / "3.jpg").symlink_to("/dev/zero")
    found = [(each.kind, each.detail) for each in inspected(whole).findings]
    assert found == [("image_unreadable", "not a file"), ("image_link", "a link to /dev/zero")]


def test_a_link_within_its_folder_or_into_a_cache_is_as_good_as_a_copy(whole: Path, tmp_path: Path) -> None:
    linked(whole / "train" / "2.jpg", whole / "train" / "more" / "2.jpg")
    linked(whole / "train" / "3.jpg", tmp_path / "cache" / "files" / "md5" / "0a" / ("1b" * 15))
    linked(whole / "val", tmp_path / "disk" / "val")  # a folder that a profile names may be a link itself
    assert kinds(whole) == set()
    linked(whole / "panoptic_train" / "1.png", tmp_path / "1.png")
    assert [(each.kind, each.detail) for each in inspected(whole).findings] == [
        ("panoptic_png", f"1.png: a link to {tmp_path / '1.png'}")
    ]


def test_an_image_turned_by_its_exif_entry_may_be_annotated_either_way(whole: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((HEIGHT, WIDTH), 50).save(whole / "train" / "2.jpg", exif=exif)
    assert kinds(whole) == set()


def edited(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found["annotations"][1].update(values)


INSTANCE_FAULTS: dict[str, list[Callable[[dict[str, Any]], object]]] = {
    "image_entry": [
        lambda found: found["images"][1].pop("file_name"),
        lambda found: found["images"][1].update(id="2"),
        lambda found: found["images"][1].update(width=-3),
        lambda found: found["images"][1].update(height=1e9),
        lambda found: found["images"][1].update(file_name="../train/2.jpg"),
        lambda found: found["images"][1].update(file_name="/etc/hostname"),
        lambda found: found["images"].append(7),
    ],
    "image_size_read": [lambda found: found["images"][1].update(size_read_from_file=True)],
    "object_area": [edited(area=0), edited(area=-1), edited(area="120"), edited(area=None), edited(area=500), edited(area=1)],
    "object_without_mask": [lambda found: found["annotations"][1].pop("segmentation"), edited(segmentation=[])],
    "object_entry": [
        lambda found: found["annotations"].append(None),
        lambda found: found["annotations"][1].pop("bbox"),
        edited(bbox=[1, 2, 3]),
        edited(bbox=["1", 2, 3, 4]),
        edited(id=None),
        edited(category_id=[3]),
    ],
    "object_id": [edited(id=1)],
    "object_without_image": [edited(image_id=99), edited(image_id="2")],
    "unknown_category": [edited(category_id=4)],
    "box_degenerate": [
        edited(bbox=[4, 6, 0, 12]),
        edited(bbox=[4, 6, 10, -1]),
        edited(bbox=[math.nan, 6, 10, 12]),
        edited(bbox=[4, 6, math.inf, 12]),
        edited(bbox=[4, 6, 10**400, 12]),
    ],
    "box_outside": [edited(bbox=[40, 6, 10, 12]), edited(bbox=[4, -20, 10, 12])],
    "box_clipped": [edited(bbox=[4, 6, 60, 12]), edited(bbox=[-2, 6, 10, 12])],
    "object_repeated": [lambda found: found["annotations"].append({**found["annotations"][1], "id": 50})],
    "polygon_broken": [
        edited(segmentation=[[1, 2, 3, 4]]),
        edited(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        edited(segmentation=[[1, 2, 3, math.nan, 5, 6]]),
        edited(segmentation=[[1, 2, 1, 5, 1, 9]]),
        edited(segmentation=[[1, 2, 3, 4, 5, 1e300]]),
        edited(segmentation=["polygon"]),
        edited(segmentation="polygon"),
    ],
    "rle_broken": [
        edited(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
        edited(segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 5, -5]}),
        edited(segmentation={"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}),
        edited(segmentation={"size": [1, 2], "counts": [1, 1]}),
        edited(segmentation={"size": [HEIGHT, WIDTH], "counts": "~~~~~~~~"}),
        edited(segmentation={"size": [HEIGHT, WIDTH]}),
    ],
}


@pytest.mark.parametrize(
    ("kind", "edit"), [(kind, edit) for kind, edits in INSTANCE_FAULTS.items() for edit in edits], ids=lambda each: str(each)[:24]
)
def test_an_entry_of_the_instances_that_is_not_as_it_should_be(
    tmp_path: Path, kind: str, edit: Callable[[dict[str, Any]], object]
) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    change(folder, "train", "instances", edit)
    found = [finding for finding in inspected(folder).findings if finding.kind == kind]
    assert [(finding.split, finding.source) for finding in found] == [("train", "instances")]
    assert found[0].detail
    json.dumps([finding.__dict__ for finding in found], allow_nan=False)


def segment(place: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found["annotations"][1]["segments_info"][place].update(values)


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("panoptic_missing_segment", lambda found: found["annotations"][1]["segments_info"].append(
            {"id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0})),
        ("panoptic_unknown_segment", lambda found: found["annotations"][1]["segments_info"].pop()),
        ("panoptic_area", segment(0, area=121)),
        ("panoptic_png", lambda found: found["annotations"][1].update(file_name="1.jpg")),
        ("panoptic_png", lambda found: found["annotations"][1].update(file_name="../panoptic_train/2.png")),
        ("unknown_category", segment(1, category_id=99)),
        ("box_degenerate", segment(1, bbox=[0, 0, 0, 0])),
        ("object_entry", segment(1, id="x")),
        ("object_entry", lambda found: found["annotations"][1].pop("segments_info")),
        ("object_without_image", lambda found: found["annotations"][1].update(image_id=77)),
    ],
)  # fmt: skip
def test_panoptic_entries_that_disagree_with_their_png(
    whole: Path, kind: str, edit: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    change(whole, "train", "panoptic", edit)
    found = inspected(whole).findings
    assert kind in {finding.kind for finding in found}
    (tmp_path / "checked").mkdir()
    write_checked(whole, found, tmp_path / "checked")
    assert not [finding for finding in inspected(tmp_path / "checked").findings if finding.leaves is not None]


def test_panoptic_pngs_that_are_cut_short_or_of_another_size(whole: Path) -> None:
    cut(whole / "panoptic_train" / "1.png", 40)
    Image.new("RGB", (3, 3)).save(whole / "panoptic_train" / "2.png")
    (whole / "panoptic_val" / "103.png").unlink()
    found = [(finding.split, finding.image_id) for finding in inspected(whole).findings if finding.kind == "panoptic_png"]
    assert found == [("train", 1), ("train", 2), ("val", 103)]


def test_copies_within_a_split_and_across(whole: Path, tmp_path: Path) -> None:
    shutil.copy(whole / "train" / "1.jpg", whole / "train" / "3.jpg")
    shutil.copy(whole / "train" / "1.jpg", whole / "val" / "102.jpg")
    found = inspected(whole).findings
    within = [(finding.file, finding.detail) for finding in found if finding.kind == "duplicate_within"]
    assert within == [("3.jpg", "the same as 1.jpg")]
    across = [(finding.split, finding.file, finding.detail) for finding in found if finding.kind == "duplicate_across"]
    assert across == [("train", "1.jpg", "the same as 102.jpg of val"), ("train", "3.jpg", "the same as 102.jpg of val")]
    (tmp_path / "checked").mkdir()
    write_checked(whole, found, tmp_path / "checked")
    kept = content("train", "instances", tmp_path / "checked" / "annotations")
    assert [image["id"] for image in kept["images"]] == [2, 4]
    assert [entry["image_id"] for entry in kept["annotations"]] == [2, 4]


def test_one_set_for_both_splits_is_meant_so(whole: Path) -> None:
    file = whole / "dataset.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"val": told["train"]}))
    assert kinds(whole) == set()


def test_more_objects_than_queries_and_categories_that_nothing_has(whole: Path) -> None:
    for split in ("train", "val"):
        for source in ("instances", "panoptic"):
            change(whole, split, source, lambda found: found["categories"].append({"id": 9, "name": "dog", "isthing": 1}))
    found = inspected(whole, queries=1).findings
    assert [finding.detail for finding in found if finding.kind == "category_unused"] == ["dog"]
    assert sum(finding.kind == "many_objects" for finding in found) == 8, "two segments each, in eight images"


def test_what_can_not_be_read_at_all_is_an_error(whole: Path) -> None:
    change(whole, "val", "instances", lambda found: found["categories"][0].update(name="dog"))
    with pytest.raises(DatasetError, match=r"instances_val\.json: categories: expected the categories of the train split"):
        inspected(whole)
    change(whole, "val", "instances", lambda found: found.update(categories=[]))
    with pytest.raises(DatasetError, match="categories: expected at least one category"):
        inspected(whole)
    cut(whole / "instances_val.json", 50)
    with pytest.raises(DatasetError, match="not valid JSON"):
        inspected(whole)


def test_nothing_to_leave_out_writes_no_annotations(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs" / "dataset"
    out.mkdir(parents=True)
    write_checked(whole, [], out)
    assert {path.name for path in out.iterdir()} == {"dataset.json"}
    assert read_dataset_file(out).root == "../../data", "so that both can be moved together"
    assert read_dataset(out) == read_dataset(whole)


def test_an_image_goes_out_of_both_files_with_its_annotations(whole: Path, tmp_path: Path) -> None:
    (whole / "train" / "2.jpg").unlink()
    change(whole, "train", "instances", lambda found: found["annotations"][2].update(bbox=[4, 6, 0, 0]))
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    (tmp_path / "out").mkdir()
    write_checked(whole, inspected(whole).findings, tmp_path / "out")
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}, "the originals stay"
    annotations = tmp_path / "out" / "annotations"
    assert [image["id"] for image in content("train", "instances", annotations)["images"]] == [1, 3, 4]
    assert [entry["id"] for entry in content("train", "instances", annotations)["annotations"]] == [1, 4]
    assert [entry["image_id"] for entry in content("train", "panoptic", annotations)["annotations"]] == [1, 3, 4]
    assert content("val", "panoptic", annotations) == content("val", "panoptic", whole)


def require_one_account(folder: Path, out: Path, found: Inspection) -> None:
    """Asserts that the statistics, the account and `left_out` of a checked dataset have the same numbers."""
    splits = read_dataset(folder)
    metrics = accounts(splits, found.supplied, read_dataset(out), found.findings)
    for name, split in splits.items():
        statistics = found.statistics[name]
        used = {"images": sum(statistics.objects.values()), "objects": sum(statistics.sides.values()) + statistics.crowds}
        for what, number in used.items():
            place = f"account/{name}/{source_counted(split)}/{what}"
            assert number == metrics[f"{place}/used"]
            assert number + metrics[f"left_out/{name}/{what}"] == metrics[f"{place}/supplied"]


def test_objects_and_crowds_of_an_image_that_is_left_out_are_not_counted(whole: Path, tmp_path: Path) -> None:
    (whole / "train" / "1.jpg").write_bytes(b"")
    for place in (0, 1):
        change(whole, "train", "panoptic", lambda found, place=place: found["annotations"][place]["segments_info"][0].update(
            iscrowd=1))  # fmt: skip
    change(whole, "train", "panoptic", lambda found: found["annotations"][2]["segments_info"].append(
        {"id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}))  # fmt: skip
    change(whole, "train", "panoptic", lambda found: found["annotations"][3]["segments_info"].append(
        {"id": 9, "category_id": 3, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 1}))  # fmt: skip
    found = inspected(whole)
    assert [finding.kind for finding in found.findings] == ["image_empty", *["panoptic_missing_segment"] * 2]
    train = found.statistics["train"]
    assert (train.classes, train.crowds, dict(train.objects)) == ({"cat": 2, "sky": 3}, 1, {1: 1, 2: 2})
    (tmp_path / "out").mkdir()
    write_checked(whole, found.findings, tmp_path / "out")
    require_one_account(whole, tmp_path / "out", found)


def test_a_crowd_with_a_broken_box_is_not_counted_as_a_crowd(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    for place, box in ((0, [4, 6, 10, 12]), (1, [4, 6, 0, 12])):
        change(folder, "train", "instances", lambda found, place=place, box=box: found["annotations"][place].update(
            iscrowd=1, bbox=box, segmentation=[]))  # fmt: skip
    found = inspected(folder)
    assert (found.statistics["train"].crowds, found.statistics["train"].classes) == (1, {"cat": 2})
    (tmp_path / "out").mkdir()
    write_checked(folder, found.findings, tmp_path / "out")
    require_one_account(folder, tmp_path / "out", found)


def test_a_split_whose_images_with_objects_are_all_left_out_has_nothing_to_learn(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    change(folder, "val", "instances", lambda found: found["annotations"].pop())
    for number in (101, 102, 103):
        (folder / "val" / f"{number}.jpg").unlink()
    found = [(each.split, each.source, each.detail) for each in inspected(folder).findings if each.kind == "nothing_to_learn"]
    assert found == [("val", "instances", "1 image, 0 crowds, no object that is neither a crowd nor left out")]


def test_no_image_left_is_an_error(whole: Path, tmp_path: Path) -> None:
    for image in (whole / "val").iterdir():
        image.write_bytes(b"")
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match=r"instances_val\.json: expected at least one valid image"):
        write_checked(whole, inspected(whole).findings, tmp_path / "out")


def test_hotcoco_finds_the_same_of_what_it_looks_for(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    faults = ({"image_id": 77}, {"category_id": 9}, {"bbox": [3, 3, 0, 2]}, {"bbox": [60, 3, 5, 5], "area": 25})
    for place, fault in enumerate(faults):
        change(folder, "train", "instances", lambda found, place=place, fault=fault: found["annotations"][place].update(fault))
    health = hotcoco.COCO(str(folder / "instances_train.json")).healthcheck()
    theirs = {entry["code"]: set(entry["affected_ids"]) for entry in health["errors"] + health["warnings"]}
    ours = {finding.kind: {(finding.place or 0) + 1} for finding in inspected(folder).findings}
    assert ours["object_without_image"] == theirs["orphan_image_id"]
    assert ours["unknown_category"] == theirs["orphan_category_id"]
    assert ours["box_degenerate"] == theirs["degenerate_bbox"]
    assert ours["box_outside"] <= theirs["bbox_out_of_bounds"]


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_run_lengths_that_pycocotools_writes_are_well(pixels: list[bool]) -> None:
    from pycocotools import mask

    encoded = mask.encode(np.asfortranarray(np.array(pixels, dtype=np.uint8).reshape(3, 4)))
    fault = outline_fault({"size": [3, 4], "counts": encoded["counts"].decode()}, (3, 4))
    assert (fault is None) == any(pixels)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 400), st.floats(), st.text(max_size=4), st.lists(st.floats(-50, 50), max_size=7)
)
PLACES = st.tuples(
    st.sampled_from(["instances", "panoptic"]), st.sampled_from(["images", "annotations", "segments"]), st.integers(0, 3)
)
FIELDS = st.sampled_from(
    ["id", "image_id", "category_id", "bbox", "segmentation", "file_name", "height", "width", "area", "segments_info", "iscrowd"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(PLACES, FIELDS, VALUES), min_size=1, max_size=4))
def test_whatever_is_in_a_file_what_is_left_can_be_read(faults: list[tuple[tuple[str, str, int], str, Any]]) -> None:
    with TemporaryDirectory() as temporary:
        folder = write_whole(Path(temporary) / "data")
        for (source, what, place), field, value in faults:

            def edit(found: dict[str, Any], what: str = what, place: int = place, field: str = field, value: Any = value) -> None:
                entry = found["images" if what == "images" else "annotations"][place]
                segments = entry.get("segments_info")
                if what == "segments" and isinstance(segments, list) and segments:
                    entry = segments[place % len(segments)]
                if isinstance(entry, dict):  # an earlier fault may have put something else in its place
                    entry[field] = value

            change(folder, "train", source, edit)
        out = Path(temporary) / "out"
        out.mkdir()
        found = inspected(folder)
        try:
            write_checked(folder, found.findings, out)
        except DatasetError as error:
            assert "expected at least one valid image" in str(error)  # noqa: PT017
            return
        assert not [finding for finding in inspected(out).findings if finding.leaves is not None]
        require_one_account(folder, out, found)
        split = read_dataset(out)["train"]
        for targets in ("instances", "panoptic"):
            dataset = CocoDataset(split, targets, targets == "panoptic", None, 0)  # type: ignore[arg-type]
            assert [len(dataset[index].target.labels) for index in range(len(dataset))]


def test_categories_of_one_name_are_told_apart(whole: Path) -> None:
    for split in ("train", "val"):
        for source in ("instances", "panoptic"):
            change(whole, split, source, lambda found: found["categories"].append({"id": 9, "name": "cat", "isthing": 1}))
    found = inspected(whole)
    assert found.statistics["train"].classes == {"cat (id 3)": 4, "sky": 4, "cat (id 9)": 0}
    repeated = [finding.detail for finding in found.findings if finding.kind == "category_repeated"]
    assert repeated == ["cat (id 3)", "cat (id 9)"]


@pytest.mark.parametrize("remove", [lambda found: found["annotations"].clear(), lambda found: found["images"].clear()])
def test_a_split_without_objects_is_found(tmp_path: Path, remove: Callable[[dict[str, Any]], object]) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    change(folder, "val", "instances", remove)
    found = [(each.split, each.source) for each in inspected(folder).findings if each.kind == "nothing_to_learn"]
    assert found == [("val", "instances")]


def test_deep_and_constant_images_are_found_with_the_range_of_the_set(tmp_path: Path) -> None:
    folder = write_whole(tmp_path / "data", panoptic=False)
    ramp = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    for number, values in ((1, ramp), (2, 3 * ramp + 100), (3, np.full_like(ramp, 9000))):
        Image.fromarray(values).save(folder / "train" / f"{number}.jpg", format="PNG")
    Image.new("L", (WIDTH, HEIGHT), 7).save(folder / "val" / "101.jpg")
    found = inspected(folder)
    assert found.value_ranges == {"16-bit": (1.0, 100 + 3 * 766.0)}, "a thousandth of 768 values is left out at either end"
    told = [(each.kind, each.file) for each in found.findings]
    assert told == [
        ("image_deep", "1.jpg"), ("image_deep", "2.jpg"), ("image_deep", "3.jpg"), ("image_constant", "3.jpg"),
        ("image_constant", "101.jpg"),
    ]  # fmt: skip
    given = inspect(read_dataset(folder), 100, Silent(), (0, 4095))
    assert given.value_ranges == {"16-bit": (0, 4095)}
    deep = [each.detail for each in given.findings if each.kind == "image_deep"]
    assert deep[0] == "16-bit values of 1 to 766; 0 to 4095 become 0 to 255"


def test_every_kind_has_a_test() -> None:
    tested = {
        *IMAGE_FAULTS,
        *INSTANCE_FAULTS,
        "image_id",
        "duplicate_within",
        "duplicate_across",
        "image_labels",  # in tests/flows/new_profile/test_yolo_voc.py
        "columns_left_out",  # in tests/sources/test_folder.py
        "many_objects",
        "category_unused",
        "category_repeated",
        "nothing_to_learn",
        "image_deep",
        "image_constant",
    }
    assert tested | {kind for kind in KINDS if kind.startswith("panoptic")} == set(KINDS)
    assert Finding("box_outside", "train").leaves == "object"
