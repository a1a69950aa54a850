"""COCO folders with unusual or damaged files: each is read, or refused in one line, and no image or annotation is lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detr_core.data.fields import read_content
from detr_core.data.splits import read_dataset
from detr_core.evaluate.ground_truth import instances
from tests.adopting import Outcome, sums
from tests.flows.new_profile.coco_exports import write


@pytest.mark.parametrize("case", ["00-plain", "07-bom", "08-appledouble-coco"])
def test_harmless_peculiarities_change_nothing(field: Path, outcome: Callable[..., Outcome], case: str) -> None:
    if case.startswith("08"):
        root = field / case / "set"
        (root / "__MACOSX").mkdir()
        (root / "__MACOSX" / "instances_train.json").write_bytes(b"\0\5\x16\7")
        for name, content in (
            (".DS_Store", b"\0\0\0\1Bud1"),
            ("Thumbs.db", b"\xd0\xcf"),
            ("empty.json", b""),
            ("log.json", b"{}{}"),
        ):
            (root / name).write_bytes(content)
        (root / "settings.json").write_text('{"images": 7}')
    result = outcome(field / case / "set")
    assert (result.error, result.notes, result.findings) == ("", [], {})
    assert result.images == {"train/images": 24, "val/images": 8}
    assert (result.metrics["train/objects"], result.metrics["val/objects"]) == (48, 17)
    assert sums(result, "objects") == {"supplied": 65, "used": 65, "left_out": 0}


def test_annotations_of_unknown_images_are_reported_without_a_validation_file(
    field: Path, outcome: Callable[..., Outcome]
) -> None:
    result = outcome(field / "05-str-image-id" / "set")
    assert result.findings == {"object_without_image": 65, "nothing_to_learn": 2, "category_unused": 2}
    assert "expected a dataset without broken entries, found 65 findings: an annotation of an unknown image" in result.error
    assert any("annotation of an unknown image: 65 in train" in line for line in result.notes)


def test_lenient_leaves_orphans_out_and_counts_them(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    root = Path(shutil.copytree(field / "05-str-image-id" / "set", tmp_path / "set"))
    content = json.loads((root / "annotations.json").read_text())
    for index, annotation in enumerate(content["annotations"]):
        annotation["image_id"] = int(annotation["image_id"]) if index % 5 else 4000 + index
    (root / "annotations.json").write_text(json.dumps(content))
    result = outcome(root, "lenient")
    assert (result.error, result.findings["object_without_image"]) == ("", 13)
    assert sums(result, "objects") == {"supplied": 65, "used": 52, "left_out": 13}
    assert sums(result, "images") == {"supplied": 32, "used": 32, "left_out": 0}


def test_missing_sizes_are_read_from_the_files_and_reported(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    result = outcome(field / "06-no-size" / "set")
    assert (result.error, result.findings) == ("", {"image_size_read": 32})
    note = "without a width and height, which were read from its file: 24 in train, 8 in val"
    assert any(note in line for line in result.notes)
    split = read_dataset(result.paths.dataset)["val"]
    assert split.instances is not None
    assert {(image["height"], image["width"]) for image in read_content(split.instances)["images"]} == {(120, 160)}

    root = Path(shutil.copytree(field / "06-no-size" / "set", tmp_path / "set"))
    content = json.loads((root / "instances_train.json").read_text())
    for image, size in zip(
        content["images"], ({"width": 0, "height": 0}, {"width": "160", "height": "120"}, {"width": None}), strict=False
    ):
        image |= size
    (root / "instances_train.json").write_text(json.dumps(content))
    (root / "images" / "img007.jpg").unlink()
    result = outcome(root)
    assert result.findings["image_size_read"] == 31
    assert "1 finding: an image entry that lacks a field" in result.error
    assert "img007.jpg: width: expected pixels, found nothing" in result.error
    lenient = outcome(root, "lenient")
    assert sums(lenient, "images") == {"supplied": 32, "used": 31, "left_out": 1}
    assert sums(lenient, "objects")["left_out"] == len([entry for entry in content["annotations"] if entry["image_id"] == 7])


def test_images_with_one_id_are_reported_and_left_out(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    result = outcome(field / "11-merged-ids" / "set", "lenient")
    assert (
        "train: expected an image that can be used, found none: 24 findings: an image with the id of another image"
        in result.error
    )

    root = Path(shutil.copytree(field / "11-merged-ids" / "set", tmp_path / "set"))
    content = json.loads((root / "instances_train.json").read_text())
    for number, image in enumerate(content["images"][15:], start=16):  # three pairs are left
        image["id"] = number
    (root / "instances_train.json").write_text(json.dumps(content))
    result = outcome(root)
    assert "6 findings: an image with the id of another image" in result.error
    result = outcome(root, "lenient")
    assert result.findings["image_id"] == 6
    assert sums(result, "images") == {"supplied": 32, "used": 26, "left_out": 6}
    assert result.metrics["left_out/train/images"] == 6
    shared = [entry for entry in content["annotations"] if entry["image_id"] <= 3]
    assert sums(result, "objects") == {"supplied": 65, "used": 65 - len(shared), "left_out": len(shared)}


def test_areas_of_zero_are_reported_and_replaced(field: Path, outcome: Callable[..., Outcome]) -> None:
    result = outcome(field / "14b-zero-area" / "set")
    assert (result.error, result.findings) == ("", {"object_area": 65})
    truth = instances(read_dataset(result.paths.dataset)["val"])
    for entry in truth.load_anns(truth.get_ann_ids()):
        assert entry["area"] == entry["bbox"][2] * entry["bbox"][3] > 0


def test_a_dataset_of_three_images_is_used(field: Path, outcome: Callable[..., Outcome]) -> None:
    result = outcome(field / "18-three-images" / "set")
    assert (result.error, result.images) == ("", {"train/images": 3, "val/images": 1})


def test_copies_of_an_image_stay_on_one_side(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    root = Path(shutil.copytree(field / "05-str-image-id" / "set", tmp_path / "set"))
    content = json.loads((root / "annotations.json").read_text())
    for annotation in content["annotations"]:
        annotation["image_id"] = int(annotation["image_id"])
    (root / "annotations.json").write_text(json.dumps(content))
    for number in range(1, 17):  # in 8 pairs
        shutil.copy(root / "images" / f"img{number:03d}.jpg", root / "images" / f"img{number + 16:03d}.jpg")
    result = outcome(root)
    assert result.error == ""
    assert set(result.findings) == {"duplicate_within"}
    assert result.findings["duplicate_within"] == 16
    assert result.images["val/images"] in range(6, 11)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([7], r"annotations\.json: images: expected entries with a `file_name`, found none"),
        ([], "images: expected entries with a `file_name`, found none"),
        ({"a": 1}, "images: expected a list, found "),
        ([{"id": 1, "file_name": "../1.jpg"}], r"images\.file_name: expected files below .*, found none such as '\.\./1\.jpg'"),
        ([{"id": "x", "file_name": "img001.jpg"}] * 3, r"expected two images of different content or more"),
    ],
)
def test_invalid_files_are_reported_in_one_line(
    tmp_path: Path, field: Path, outcome: Callable[..., Outcome], images: Any, message: str
) -> None:
    root = Path(shutil.copytree(field / "05-str-image-id" / "set", tmp_path / "set"))
    content = json.loads((root / "annotations.json").read_text()) | {"images": images}
    write(root / "annotations.json", content)
    error = outcome(root).error
    assert re.search(message, error), error


@pytest.mark.parametrize(("content", "message"), [("", "empty"), ("{", "not valid JSON"), ("[" * 100_000, "not valid JSON")])
def test_a_damaged_file_of_the_set_is_not_passed_over(
    tmp_path: Path, field: Path, outcome: Callable[..., Outcome], content: str, message: str
) -> None:
    root = Path(shutil.copytree(field / "00-plain" / "set", tmp_path / "set"))
    (root / "instances_val.json").write_text(content)
    assert f"instances_val.json: {message}" in outcome(root).error


def test_annotation_files_of_no_split_are_reported(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    root = Path(shutil.copytree(field / "00-plain" / "set", tmp_path / "set"))
    shutil.copy(root / "instances_train.json", root / "all.json")
    assert outcome(root).notes == ["all.json is not used: 24 images, 48 annotations"]


def test_an_ending_in_capitals_is_read(tmp_path: Path, field: Path, outcome: Callable[..., Outcome]) -> None:
    root = Path(shutil.copytree(field / "00-plain" / "set", tmp_path / "set"))
    (root / "instances_val.json").rename(root / "instances_val.JSON")
    assert outcome(root).images == {"train/images": 24, "val/images": 8}
